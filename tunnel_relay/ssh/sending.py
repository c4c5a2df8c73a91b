"""The sending half of a channel: data goes out as the peer's window, the other channels and a key exchange allow."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

import trio

from tunnel_relay.errors import SshDisconnectedError
from tunnel_relay.protocol.ssh_numbers import CHANNEL_EOF
from tunnel_relay.splicing import Moved
from tunnel_relay.ssh.carrier import Standing
from tunnel_relay.ssh.packets import MAX_DATA
from tunnel_relay.streams import OneAtATime

# A window cannot grow beyond this (RFC 4254, section 5.2).
MAX_WINDOW = 2**32 - 1
# What `soak` reads ahead, in messages, where it has to wait for its turn.
READ_AHEAD = 2
# What `soak` moves, and how often it reads, before the other tasks get their turn. A pass of the scheduler costs
# a tenth of what moving 256 KiB does; a megabyte takes a millisecond or two.
TURN = 1024 * 1024
TURN_READS = 16

_EOF = struct.Struct(">BI")


class SendingHalf:
    """Sends; see `tunnel_relay.ssh.channel.SshChannel` for what may be raised."""

    def __init__(self, standing: Standing) -> None:
        self.queued = False
        """See `tunnel_relay.ssh.carrier.Sender`."""
        self._standing = standing
        self._window = 0
        self._most = 0
        """The longest piece of data that the peer takes in one message."""
        self._pending: memoryview | None = None
        self._eof_sent = False
        self._one = OneAtATime("sending on")
        self._progress = trio.lowlevel.ParkingLot()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*; returns when it may be used again."""
        with self._one:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check()
            if len(data):
                await self._send_in_turn(memoryview(data).cast("B"))
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def soak(self, source: socket.socket, moved: Moved) -> None:
        """Send all that *source* gives; what need not wait for its turn is read to where it is sealed."""

        def read(buffers: Sequence[memoryview]) -> int:
            return os.readv(source.fileno(), buffers)

        carrier = self._standing.carrier
        since_turn = 0
        with self._one:
            await trio.lowlevel.checkpoint()
            while True:
                self._check()
                asked = min(self._window, carrier.room())
                try:
                    if asked:
                        count = carrier.read_data(self._standing.remote, read, self._most, asked)
                        self._window -= count
                        since_turn += max(count, TURN // TURN_READS)
                        if since_turn >= TURN:
                            since_turn = 0
                            await trio.lowlevel.checkpoint()
                    else:
                        data = source.recv(READ_AHEAD * self._most)
                        count = len(data)
                        if count:
                            await self._send_in_turn(memoryview(data))
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(source)
                    continue
                except OSError as exc:
                    raise trio.BrokenResourceError(f"the socket broke: {exc.strerror}") from exc
                if not count:
                    return
                moved(count)

    async def wait_might_not_block(self) -> None:
        """Wait until the peer's window is open."""
        with self._one:
            await trio.lowlevel.checkpoint()
            self._check()
            while not self._window:
                await self._progress.park()
                self._check()

    async def send_eof(self) -> None:
        """Send the end of the stream, once."""
        with self._one:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._standing.check_usable()
            if not self._eof_sent:
                self._check()
                self.end()
            await trio.lowlevel.cancel_shielded_checkpoint()

    def end(self) -> None:
        """Send the end of the stream, unless that is done."""
        if not self._eof_sent:
            self._eof_sent = True
            self._standing.carrier.send(_EOF.pack(CHANNEL_EOF, self._standing.remote))

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._progress.unpark_all()

    # -- what its carrier calls

    @property
    def unsent(self) -> int:
        """Bytes of a `send_all` under way that have not been written."""
        return 0 if self._pending is None else len(self._pending)

    @property
    def sendable(self) -> bool:
        """See `tunnel_relay.ssh.carrier.Sender.sendable`."""
        return self._pending is not None and self._window > 0

    def write(self, most: int = 0) -> None:
        """See `tunnel_relay.ssh.carrier.Sender.write`."""
        pending = self._pending
        assert pending is not None
        size = min(len(pending), self._window, max(most, self._most))
        self._standing.carrier.write_data(self._standing.remote, pending[:size], self._most)
        self._window -= size
        if size == len(pending):
            self._pending = None
            self.wake()
        else:
            self._pending = pending[size:]

    # -- what arrives

    def on_open(self, window: int, most: int) -> None:
        """The peer takes *window* bytes, *most* of them in one message."""
        self._window = window
        self._most = min(most, MAX_DATA)
        if not self._most:
            raise SshDisconnectedError("the server allows no data in a message")

    def on_window_adjust(self, more: int) -> None:
        """The peer takes *more* bytes."""
        self._standing.must_flow()
        self._window += more
        if self._window > MAX_WINDOW:
            raise SshDisconnectedError("the server opened a window wider than the protocol allows")
        if self._pending is not None:
            self._standing.carrier.offer(self)
        else:
            self.wake()

    # -- internals

    async def _send_in_turn(self, data: memoryview) -> None:
        self._pending = data
        self._standing.carrier.offer(self)
        try:
            # Not the data but this half is looked at: it may have been told to stop meanwhile.
            while self.unsent:
                await self._progress.park()
                self._check()
        finally:
            self._pending = None

    def _check(self) -> None:
        standing = self._standing
        standing.check_usable()
        if self._eof_sent:
            raise trio.ClosedResourceError("the end of this stream has been sent")
        standing.check_connection()
        if not standing.flowing:
            raise trio.BrokenResourceError("the peer closed the channel")

"""The receiving half of a channel: what arrived, who takes it, and how much more may come.

What the peer may send is bounded by the channel's window. It is widened when data are taken, never when they
arrive; a reader that stalls costs one window at most, and holds nobody else up.
"""

from __future__ import annotations

import operator
import socket
import struct

import trio

from tunnel_relay.protocol.ssh_numbers import CHANNEL_WINDOW_ADJUST
from tunnel_relay.splicing import Moved
from tunnel_relay.ssh.carrier import Standing
from tunnel_relay.ssh.inbox import Inbox
from tunnel_relay.ssh.window import ReceiveWindow
from tunnel_relay.streams import OneAtATime

# What receive_some returns at most when it is not told.
RECEIVE_SIZE = 256 * 1024

_ADJUST = struct.Struct(">BII")


class ReceivingHalf:
    """Hands out what the connection puts in; see `tunnel_relay.ssh.channel.SshChannel` for what may be raised."""

    def __init__(self, standing: Standing, window: ReceiveWindow) -> None:
        self.window = window
        self._standing = standing
        self._inbox = Inbox()
        self._at_eof = False
        self._one = OneAtATime("receiving from")
        self._arrival = trio.lowlevel.ParkingLot()
        self._sink: socket.socket | None = None
        self._moved: Moved | None = None

    @property
    def waiting(self) -> int:
        """Bytes that have arrived and nobody has taken."""
        return self._inbox.size

    async def receive_some(self, max_bytes: int | None) -> bytes:
        """Return what has arrived, or ``b""`` at the end."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._one:
            if self._ready:
                await trio.lowlevel.checkpoint()
            while not self._ready:
                await self._arrival.park()
            if not self._inbox.size:
                self._check_end()
                return b""
            data = self._inbox.take(max_bytes or RECEIVE_SIZE)
            self._credit(len(data))
            return data

    async def pour(self, sink: socket.socket, moved: Moved) -> None:
        """Write everything to *sink*; while it takes it, the task that reads the connection does so."""
        with self._one:
            await trio.lowlevel.checkpoint()
            self._moved = moved
            try:
                while True:
                    self._write_to(sink)
                    if self._inbox.size:
                        await trio.lowlevel.wait_writable(sink)
                    elif self._ready:
                        self._check_end()
                        return
                    else:
                        self._sink = sink
                        await self._arrival.park()
                        self._sink = None
            except OSError as exc:
                raise trio.BrokenResourceError(f"the socket broke: {exc.strerror}") from exc
            finally:
                self._sink = None

    def flush(self) -> None:
        """Write what has arrived to the sink of `pour`; what it does not take is for `pour` to write later."""
        try:
            if self._sink is not None:
                self._write_to(self._sink)
        except OSError:
            # `pour` will meet it again, and can say so.
            self.wake()
        if self._inbox.size:
            self._inbox.keep()
            self.wake()

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._arrival.unpark_all()

    def drop(self) -> None:
        """Forget what has arrived: nobody will take it."""
        self._inbox.clear()
        self.wake()

    # -- what arrives

    def on_data(self, data: memoryview) -> None:
        """Take *data* in, which are gone after `flush`."""
        standing = self._standing
        standing.must_flow()
        self.window.arrived(len(data))
        if standing.closed or self._at_eof:
            return
        if self._sink is not None:
            self._inbox.lend(data)
            standing.carrier.flush_later(self)
        else:
            self._inbox.put(data)
            if self._arrival:
                self._arrival.unpark_all()

    def on_dropped(self, size: int) -> None:
        """Count *size* bytes that are not for us."""
        self._standing.must_flow()
        self.window.arrived(size)
        self._credit(size)

    def on_eof(self) -> None:
        """Take note that the peer sends no more."""
        self._standing.must_flow()
        self._at_eof = True
        self.wake()

    # -- internals

    @property
    def _ready(self) -> bool:
        standing = self._standing
        return self._inbox.size > 0 or self._at_eof or standing.closed or standing.carrier.failure is not None

    def _check_end(self) -> None:
        self._standing.check_usable()
        if not self._at_eof:
            self._standing.check_connection()

    def _write_to(self, sink: socket.socket) -> None:
        if self._inbox.size:
            count = self._inbox.write_to(sink)
            if count:
                self._credit(count)
                if self._moved is not None:
                    self._moved(count)

    def _credit(self, size: int) -> None:
        """Let the peer send as much as was taken, once that is worth a message."""
        standing = self._standing
        if self._at_eof or standing.closed or not standing.flowing:
            return
        if more := self.window.consumed(size, drained=not self._inbox.size):
            standing.carrier.send(_ADJUST.pack(CHANNEL_WINDOW_ADJUST, standing.remote, more))

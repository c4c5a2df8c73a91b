"""One channel of an SSH connection (RFC 4254, section 5) as a Trio stream.

Receiving: what the peer may send is bounded by the channel's window. It is widened when the reader takes data,
never when data arrive, so a reader that stalls costs at most one window and holds nobody else up.

Sending: `SshChannel.send_all` returns once everything has been sealed into the connection's bounded output. It
waits while the peer's window is shut, while others have their turn, and while keys are exchanged.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from typing import Protocol

import trio

from tunnel_relay.errors import ChannelRefusedError, SshDisconnectedError, SshError
from tunnel_relay.protocol.ssh_fields import Fields
from tunnel_relay.protocol.ssh_numbers import (
    CHANNEL_CLOSE,
    CHANNEL_EOF,
    CHANNEL_FAILURE,
    CHANNEL_WINDOW_ADJUST,
)
from tunnel_relay.ssh.packets import MAX_PAYLOAD, Part
from tunnel_relay.ssh.window import ReceiveWindow

# What receive_some returns at most when it is not told.
RECEIVE_SIZE = 256 * 1024
# A window cannot grow beyond this (RFC 4254, section 5.2).
MAX_WINDOW = 2**32 - 1
_NOT_OPEN = "the server used a channel that is not open"
# Pieces below this are copied together: each object would weigh far more than its bytes.
_SMALL = 4096
_COALESCED = 64 * 1024

# Message number, channel, and how many bytes: data, and a window adjustment.
_COUNT = struct.Struct(">BII")
_NUMBER = struct.Struct(">BI")


class Carrier(Protocol):
    """What a channel needs of its connection."""

    @property
    def failure(self) -> SshError | None:
        """Why the connection ended, once it has."""
        ...

    def send(self, *parts: Part) -> None:
        """Send one message as soon as no key exchange is in the way."""
        ...

    def offer(self, channel: SshChannel) -> None:
        """Send what *channel* has pending, in its turn."""
        ...

    def write_data(self, recipient: int, data: memoryview, most: int) -> None:
        """Write *data* to the peer's channel *recipient*, *most* bytes in a message."""
        ...

    def forget(self, channel: SshChannel) -> None:
        """The channel is closed on both sides: its number is free."""
        ...


class _State(enum.Enum):
    OPENING = enum.auto()
    OPEN = enum.auto()
    ABANDONED = enum.auto()
    """Given up before the peer answered; the answer is still to come."""
    CLOSED = enum.auto()


class SshChannel(trio.abc.HalfCloseableStream):
    """A byte stream to the host and port that a server connected for us.

    Cancelling `send_all` leaves an unknown part of the data sent: close the channel then. Cancelling
    `receive_some` loses nothing.
    """

    def __init__(self, carrier: Carrier, number: int, window: ReceiveWindow) -> None:
        self.number = number
        self._carrier = carrier
        self._state = _State.OPENING
        self._answered = trio.Event()
        self._refusal: ChannelRefusedError | None = None

        self.window = window
        self._inbox: deque[memoryview | bytearray] = deque()
        self._waiting = 0
        self._at_eof = False
        self._receiving = False
        self._arrival = trio.lowlevel.ParkingLot()

        self._remote = 0
        self._send_window = 0
        self._send_packet = 0
        self._pending: memoryview | None = None
        self._sending = False
        self._eof_sent = False
        self._flowing = False
        """Whether the peer may use the channel: it has opened and not closed it."""
        self._progress = trio.lowlevel.ParkingLot()
        self.queued = False
        """Whether the carrier has this channel in its queue; the carrier's to set."""

    # -- what a user of the stream calls

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has arrived, at least one byte; ``b""`` is the end of the stream.

        Raises:
          trio.BrokenResourceError: the SSH connection ended before the stream did.
          trio.ClosedResourceError: the channel was closed here.
          trio.BusyResourceError: another task is receiving.

        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this channel")
        self._receiving = True
        try:
            if self._receivable:
                await trio.lowlevel.checkpoint()
            while not self._receivable:
                await self._arrival.park()
            if self._state is _State.CLOSED:
                raise trio.ClosedResourceError("the channel is closed")
            if self._waiting:
                return self._take(max_bytes or RECEIVE_SIZE)
            if not self._at_eof:
                self._check_connection()
            return b""
        finally:
            self._receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*; it may be used again afterwards.

        Raises:
          trio.BrokenResourceError: the peer closed the channel, or the SSH connection ended.
          trio.ClosedResourceError: the channel was closed here, or `send_eof` was called.
          trio.BusyResourceError: another task is sending.

        """
        with _Turn(self):
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check_sending()
            if len(data):
                self._pending = memoryview(data).cast("B")
                self._carrier.offer(self)
                try:
                    while self._pending is not None:
                        await self._progress.park()
                        self._check_sending()
                finally:
                    self._pending = None
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the peer's window is open; see `send_all` for what may be raised."""
        with _Turn(self):
            await trio.lowlevel.checkpoint()
            self._check_sending()
            while not self._send_window:
                await self._progress.park()
                self._check_sending()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on. See `send_all` for what may be raised."""
        with _Turn(self):
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._state is _State.CLOSED:
                raise trio.ClosedResourceError("the channel is closed")
            if not self._eof_sent:
                self._check_sending()
                self._send_eof()
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def aclose(self) -> None:
        """Close both directions. What was sent still arrives; what was not received is dropped."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Do what `aclose` does, without a checkpoint: closing never waits."""
        if self._state is _State.OPENING:
            self._state = _State.ABANDONED
        elif self._state is _State.OPEN:
            self._state = _State.CLOSED
            self._drop_inbox()
            if self._carrier.failure is None:
                self._say_goodbye()
            self._wake()

    async def wait_open(self) -> None:
        """Wait for the peer's answer to the request for this channel.

        Raises:
          ChannelRefusedError: it said no.
          SshDisconnectedError: the connection ended before it answered.

        """
        await self._answered.wait()
        if self._refusal is not None:
            raise self._refusal
        if (failure := self._carrier.failure) is not None:
            raise SshDisconnectedError(str(failure)) from failure

    @property
    def unsent(self) -> int:
        """Bytes of a `send_all` under way that have not been sealed."""
        return 0 if self._pending is None else len(self._pending)

    @property
    def sendable(self) -> bool:
        """Whether there is something to send and the peer would take it."""
        return self._pending is not None and self._send_window > 0

    # -- what the connection calls

    def write(self, most: int = 0) -> None:
        """Seal what is pending, *most* bytes or one message of it. Call it only while `sendable`."""
        pending = self._pending
        assert pending is not None
        size = min(len(pending), self._send_window, max(most, self._send_packet))
        self._carrier.write_data(self._remote, pending[:size], self._send_packet)
        self._send_window -= size
        if size == len(pending):
            self._pending = None
            self._progress.unpark_all()
        else:
            self._pending = pending[size:]

    def on_confirmation(self, fields: Fields) -> None:
        """The peer opened the channel (SSH_MSG_CHANNEL_OPEN_CONFIRMATION)."""
        if self._answered.is_set():
            raise SshDisconnectedError("the server opened a channel twice")
        self._remote = fields.uint32()
        self._send_window = fields.uint32()
        self._send_packet = min(fields.uint32(), MAX_PAYLOAD - _COUNT.size)
        if self._send_packet == 0:
            raise SshDisconnectedError("the server allows no data in a message")
        if self._state is _State.ABANDONED:
            self._state = _State.CLOSED
            self._say_goodbye()
        else:
            self._state = _State.OPEN
        self._flowing = True
        self._answered.set()

    def on_refusal(self, fields: Fields) -> None:
        """The peer would not open the channel (SSH_MSG_CHANNEL_OPEN_FAILURE)."""
        if self._answered.is_set():
            raise SshDisconnectedError("the server refused a channel that it had opened")
        self._refusal = ChannelRefusedError(fields.uint32(), fields.text())
        self._state = _State.CLOSED
        self._carrier.forget(self)
        self._answered.set()

    def on_data(self, data: memoryview) -> None:
        """Data arrived (SSH_MSG_CHANNEL_DATA)."""
        if not self._flowing:
            raise SshDisconnectedError(_NOT_OPEN)
        size = len(data)
        self.window.arrived(size)
        if self._state is _State.CLOSED or self._at_eof:
            # Nobody will read it, and nobody needs more of it.
            return
        if size >= _SMALL:
            self._inbox.append(data)
        else:
            last = self._inbox[-1] if self._inbox else None
            if isinstance(last, bytearray) and len(last) < _COALESCED:
                last += data
            else:
                self._inbox.append(bytearray(data))
        self._waiting += size
        if self._arrival:
            self._arrival.unpark_all()

    def on_extended_data(self, length: int) -> None:
        """Data arrived on another stream than the only one that we read: it is dropped."""
        self._must_be_open()
        self.window.arrived(length)
        self._credit(length)

    def on_window_adjust(self, more: int) -> None:
        """The peer takes *more* bytes (SSH_MSG_CHANNEL_WINDOW_ADJUST)."""
        self._must_be_open()
        self._send_window += more
        if self._send_window > MAX_WINDOW:
            raise SshDisconnectedError("the server opened a window wider than the protocol allows")
        if self._pending is not None:
            self._carrier.offer(self)
        elif self._sending:
            self._progress.unpark_all()

    def on_eof(self) -> None:
        """The peer will send no more (SSH_MSG_CHANNEL_EOF)."""
        self._must_be_open()
        self._at_eof = True
        self._arrival.unpark_all()

    def on_close(self) -> None:
        """The peer closed the channel (SSH_MSG_CHANNEL_CLOSE)."""
        self._must_be_open()
        self._at_eof = True
        self._flowing = False
        if self._state is _State.OPEN:
            # Both sides have to say it; there is nothing left to send to one that has.
            self._carrier.send(_NUMBER.pack(CHANNEL_CLOSE, self._remote))
        self._carrier.forget(self)
        self._wake()

    def on_request(self, fields: Fields) -> None:
        """The peer asks something of the channel (SSH_MSG_CHANNEL_REQUEST): we know no such thing."""
        self._must_be_open()
        fields.string()
        if fields.boolean():
            self._carrier.send(_NUMBER.pack(CHANNEL_FAILURE, self._remote))

    def on_disconnected(self) -> None:
        """The connection ended; its `Carrier.failure` says why."""
        self._answered.set()
        self._wake()

    # -- internals

    @property
    def _receivable(self) -> bool:
        return (
            self._waiting > 0
            or self._at_eof
            or self._state is _State.CLOSED
            or self._carrier.failure is not None
        )

    def _take(self, limit: int) -> bytes:
        inbox = self._inbox
        if self._waiting <= limit:
            data = bytes(inbox[0]) if len(inbox) == 1 else b"".join(inbox)
            inbox.clear()
            self._waiting = 0
        else:
            taken: list[memoryview | bytearray] = []
            room = limit
            while room and len(inbox[0]) <= room:
                room -= len(inbox[0])
                taken.append(inbox.popleft())
            if room:
                rest = memoryview(inbox[0])
                taken.append(rest[:room])
                inbox[0] = rest[room:]
            data = b"".join(taken)
            self._waiting -= limit
        self._credit(len(data))
        return data

    def _credit(self, size: int) -> None:
        if self._at_eof or self._state is not _State.OPEN or self._carrier.failure is not None:
            return
        if more := self.window.consumed(size, drained=not self._waiting):
            self._carrier.send(_COUNT.pack(CHANNEL_WINDOW_ADJUST, self._remote, more))

    def _drop_inbox(self) -> None:
        self._inbox.clear()
        self._waiting = 0

    def _send_eof(self) -> None:
        self._eof_sent = True
        self._carrier.send(_NUMBER.pack(CHANNEL_EOF, self._remote))

    def _say_goodbye(self) -> None:
        if not self._flowing:
            return
        if not self._eof_sent:
            self._send_eof()
        self._carrier.send(_NUMBER.pack(CHANNEL_CLOSE, self._remote))

    def _wake(self) -> None:
        self._arrival.unpark_all()
        self._progress.unpark_all()

    def _must_be_open(self) -> None:
        if not self._flowing:
            raise SshDisconnectedError(_NOT_OPEN)

    def _check_connection(self) -> None:
        failure = self._carrier.failure
        if failure is not None:
            raise trio.BrokenResourceError(str(failure)) from failure

    def _check_sending(self) -> None:
        if self._state is _State.CLOSED:
            raise trio.ClosedResourceError("the channel is closed")
        if self._eof_sent:
            raise trio.ClosedResourceError("the end of this stream has been sent")
        self._check_connection()
        if not self._flowing:
            raise trio.BrokenResourceError("the peer closed the channel")

    # -- the conflict detector, open to `_Turn`

    def begin_sending(self) -> None:
        """Enter `send_all` or one of its like; one task at a time."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this channel")
        self._sending = True

    def end_sending(self) -> None:
        """Leave it."""
        self._sending = False


class _Turn:
    """Lets one task at a time send."""

    __slots__ = ("_channel",)

    def __init__(self, channel: SshChannel) -> None:
        self._channel = channel

    def __enter__(self) -> None:
        self._channel.begin_sending()

    def __exit__(self, *_: object) -> None:
        self._channel.end_sending()

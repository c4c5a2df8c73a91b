"""One channel of an SSH connection (RFC 4254, section 5) as a Trio stream: two halves, opened and closed as one."""

from __future__ import annotations

import enum
import socket
import struct

import trio

from tunnel_relay.errors import ChannelRefusedError, SshDisconnectedError
from tunnel_relay.protocol.ssh_fields import Fields
from tunnel_relay.protocol.ssh_numbers import CHANNEL_CLOSE, CHANNEL_FAILURE
from tunnel_relay.splicing import Moved, SpliceableStream
from tunnel_relay.ssh.carrier import Carrier, Standing
from tunnel_relay.ssh.receiving import ReceivingHalf
from tunnel_relay.ssh.sending import SendingHalf
from tunnel_relay.ssh.window import ReceiveWindow

_NUMBER = struct.Struct(">BI")


class _State(enum.Enum):
    OPENING = enum.auto()
    OPEN = enum.auto()
    ABANDONED = enum.auto()
    """Given up before the peer answered; the answer is still to come."""
    CLOSED = enum.auto()


class SshChannel(SpliceableStream):
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
        self._standing = Standing(carrier)
        self.receiving = ReceivingHalf(self._standing, window)
        self.sending = SendingHalf(self._standing)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has arrived, at least one byte; ``b""`` is the end of the stream.

        Raises:
          trio.BrokenResourceError: the SSH connection ended before the stream did.
          trio.ClosedResourceError: the channel was closed here.
          trio.BusyResourceError: another task is receiving.

        """
        return await self.receiving.receive_some(max_bytes)

    async def pour(self, sink: socket.socket, moved: Moved) -> None:
        """See `SpliceableStream.pour`."""
        await self.receiving.pour(sink, moved)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*, which may be used again afterwards.

        Returns once everything has been sealed into the connection's bounded output. Waits while the peer's
        window is shut, while others have their turn, and while keys are exchanged.

        Raises:
          trio.BrokenResourceError: the peer closed the channel, or the SSH connection ended.
          trio.ClosedResourceError: the channel was closed here, or `send_eof` was called.
          trio.BusyResourceError: another task is sending.

        """
        await self.sending.send_all(data)

    async def soak(self, source: socket.socket, moved: Moved) -> None:
        """See `SpliceableStream.soak`."""
        await self.sending.soak(source, moved)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the peer's window is open; see `send_all` for what may be raised."""
        await self.sending.wait_might_not_block()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on. See `send_all` for what may be raised."""
        await self.sending.send_eof()

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

    async def aclose(self) -> None:
        """Close both directions. What was sent still arrives; what was not received is dropped."""
        self.close()
        await trio.lowlevel.checkpoint()

    @property
    def closed(self) -> bool:
        """Whether it was closed here, or refused; the peer may have yet to say so too."""
        return self._state in (_State.ABANDONED, _State.CLOSED)

    def close(self) -> None:
        """Do what `aclose` does, without a checkpoint: closing never waits."""
        if self._state is _State.OPENING:
            self._state = _State.ABANDONED
        elif self._state is _State.OPEN:
            self._shut()

    def _shut(self) -> None:
        self._state = _State.CLOSED
        self._standing.closed = True
        if self._standing.flowing:
            self.sending.end()
            self._carrier.send(_NUMBER.pack(CHANNEL_CLOSE, self._standing.remote))
        self.receiving.drop()
        self.sending.wake()

    # -- what the connection calls when a message arrives

    def on_confirmation(self, fields: Fields) -> None:
        """The peer opened the channel (SSH_MSG_CHANNEL_OPEN_CONFIRMATION)."""
        if self._answered.is_set():
            raise SshDisconnectedError("the server opened a channel twice")
        self._standing.remote = fields.uint32()
        self.sending.on_open(fields.uint32(), fields.uint32())
        self._standing.flowing = True
        self._answered.set()
        if self._state is _State.ABANDONED:
            self._shut()
        else:
            self._state = _State.OPEN

    def on_opening(self, remote: int, window: int, most: int) -> None:
        """The peer opens the channel, and was not refused (SSH_MSG_CHANNEL_OPEN)."""
        self._standing.remote = remote
        self.sending.on_open(window, most)
        self._standing.flowing = True
        self._state = _State.OPEN
        self._answered.set()

    def on_refusal(self, fields: Fields) -> None:
        """The peer would not open the channel (SSH_MSG_CHANNEL_OPEN_FAILURE)."""
        if self._answered.is_set():
            raise SshDisconnectedError("the server refused a channel that it had opened")
        self._refusal = ChannelRefusedError(fields.uint32(), fields.text())
        self._state = _State.CLOSED
        self._answered.set()

    def on_close(self) -> None:
        """The peer closed the channel (SSH_MSG_CHANNEL_CLOSE)."""
        self.receiving.on_eof()
        self._standing.flowing = False
        if self._state is _State.OPEN:
            # Both sides have to say it; there is nothing left to send to one that has.
            self._carrier.send(_NUMBER.pack(CHANNEL_CLOSE, self._standing.remote))
        self.sending.wake()

    def on_request(self, fields: Fields) -> None:
        """The peer asks something of the channel (SSH_MSG_CHANNEL_REQUEST): we know no such thing."""
        self._standing.must_flow()
        fields.string()
        if fields.boolean():
            self._carrier.send(_NUMBER.pack(CHANNEL_FAILURE, self._standing.remote))

    def on_reply(self, *, success: bool) -> None:
        """The peer answers a request about the channel (SSH_MSG_CHANNEL_SUCCESS, _FAILURE): we make none."""
        del success
        raise SshDisconnectedError("the server answered a request that nobody made")

    def on_disconnected(self) -> None:
        """The connection ended; its `Carrier.failure` says why."""
        self._answered.set()
        self.receiving.wake()
        self.sending.wake()

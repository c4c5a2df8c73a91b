"""Carry bytes between a stream of a tunnel and a socket, each direction until it ends."""

from __future__ import annotations

import socket
import struct

import attrs
import trio

from awg_obfs.events import StreamOutcome
from awg_obfs.protocol.tunnel_wire import ResetCode
from awg_obfs.quic.errors import ConnectionLostError, StreamResetError
from awg_obfs.quic.stream import QuicStream

# A read from the socket. A stream takes some of these before it makes its sender wait.
READ = 64 * 1024

# Linger is on, and takes no time: closing sends RST, and drops what was not sent.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_RESET_CODES = {StreamOutcome.IDLE: ResetCode.IDLE, StreamOutcome.DRAINED: ResetCode.STOPPING}


@attrs.define(eq=False)
class Relay:
    """A *stream* and a connected, non-blocking socket, which `run` carries bytes between, and closes.

    Attributes:
      sent: Bytes from the stream that the socket has taken.
      received: Bytes from the socket that the stream has taken.
      outcome: How it ended.

    """

    stream: QuicStream
    sock: socket.socket
    sent: int = attrs.field(default=0, init=False)
    received: int = attrs.field(default=0, init=False)
    outcome: StreamOutcome = attrs.field(default=StreamOutcome.OK, init=False)
    _finished: bool = attrs.field(default=False, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False, repr=False)

    async def run(self, greeting: bytes = b"", early: bytes = b"") -> None:
        """Relay until both directions have ended, or `end`.

        The stream gets a *greeting* first; *early* bytes of it were read already.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry_up, early)
                    nursery.start_soon(self._carry_down, greeting)
        finally:
            if not self._finished and self.outcome is StreamOutcome.OK:
                self.outcome = StreamOutcome.RESET
            self._close()

    def end(self, outcome: StreamOutcome) -> None:
        """Be over now, by a reset at both sides."""
        self.outcome = outcome
        self._scope.cancel()

    def progress(self) -> int:
        """See `idleness.Watched`."""
        return self.sent + self.received

    def expire(self) -> None:
        """See `idleness.Watched`."""
        self.end(StreamOutcome.IDLE)

    async def _carry_up(self, data: bytes) -> None:
        stream, sock = self.stream, self.sock
        try:
            data = data or await stream.receive_some()
            while data:
                await self._send(data)
                self.sent += len(data)
                data = await stream.receive_some()
            sock.shutdown(socket.SHUT_WR)
            await stream.wait_unheard()
            # Both directions have ended, or the other one leads nowhere.
            self._finished = True
            self._scope.cancel()
        except (OSError, StreamResetError, ConnectionLostError):
            # Whoever broke it, the other side should know that it was no orderly end.
            self.end(StreamOutcome.RESET)

    async def _carry_down(self, greeting: bytes) -> None:
        stream = self.stream
        try:
            await stream.send_all(greeting)
            while data := await self._receive():
                await stream.send_all(data)
                self.received += len(data)
            await stream.send_eof()
        except StreamResetError:
            # The client reads no more. What it sends still goes out.
            return
        except (OSError, ConnectionLostError):
            self.end(StreamOutcome.RESET)

    async def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.sock.send(rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.sock)

    async def _receive(self) -> bytes:
        while True:
            try:
                return self.sock.recv(READ)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock)

    def _close(self) -> None:
        if self.outcome is StreamOutcome.OK:
            self.stream.close()
        else:
            self.stream.reset(_RESET_CODES.get(self.outcome, ResetCode.BROKEN))
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.sock.close()

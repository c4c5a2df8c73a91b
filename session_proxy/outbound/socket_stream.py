"""A connected socket as a Trio stream that can also be used at the level of the operating system.

Trio's own `trio.SocketStream` goes through the scheduler on every call, and hides its socket. This one lets a
relay take `PlainSocketStream.socket` and move bytes itself.
"""

from __future__ import annotations

import errno
import socket
import struct

import attrs
import trio

# One read's worth where the caller names none: Trio's own default (64 KiB) costs a third of the throughput.
READ = 256 * 1024

# SO_LINGER: on, for zero seconds. Closing then sends RST, so the peer cannot take the end for a clean one.
ABORT = struct.pack("ii", 1, 0)


@attrs.define(eq=False)
class PlainSocketStream(trio.abc.HalfCloseableStream):
    """A stream over *socket*, which is connected and non-blocking, and which this object owns.

    What uses `socket` itself must not run at the same time as the stream's own methods.
    """

    socket: socket.socket
    _busy_sending: bool = attrs.field(default=False, init=False, repr=False)
    _busy_receiving: bool = attrs.field(default=False, init=False, repr=False)
    _eof_sent: bool = attrs.field(default=False, init=False, repr=False)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return up to *max_bytes* bytes, or ``b""`` at the end of the stream."""
        await trio.lowlevel.checkpoint()
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._busy_receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._busy_receiving = True
        try:
            return await self.receive_eagerly(max_bytes or READ)
        finally:
            self._busy_receiving = False

    async def receive_eagerly(self, max_bytes: int) -> bytes:
        """Return bytes without passing through the scheduler where some are there already.

        For a handshake, whose bytes are few and mostly there; it is not always a checkpoint.
        """
        while (data := self.receive_nowait(max_bytes)) is None:
            await trio.lowlevel.wait_readable(self.socket)
        return data

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """Return bytes, or ``b""`` at the end of the stream; `None` where there is nothing now."""
        self._check_open()
        try:
            return self.socket.recv(max_bytes)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise self._broken(exc) from exc

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of *data*; where this is cancelled, any part of it may have been sent."""
        await trio.lowlevel.checkpoint()
        if self._busy_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._busy_sending = True
        try:
            await self.send_eagerly(data)
        finally:
            self._busy_sending = False

    async def send_eagerly(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of *data*, passing through the scheduler only where the socket's buffer is full."""
        self._check_open()
        if self._eof_sent:
            raise trio.ClosedResourceError("end of file has been sent already")
        with memoryview(data).cast("B") as view:
            sent = 0
            while sent < len(view):
                try:
                    sent += self.socket.send(view[sent:])
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self.socket)
                    self._check_open()
                except OSError as exc:
                    raise self._broken(exc) from exc

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket's buffer has room."""
        await trio.lowlevel.checkpoint()
        if self._busy_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_open()
        self._busy_sending = True
        try:
            await trio.lowlevel.wait_writable(self.socket)
        finally:
            self._busy_sending = False

    async def send_eof(self) -> None:
        """Tell the peer that no more bytes come; receiving goes on."""
        await trio.lowlevel.checkpoint()
        if self._busy_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_open()
        if not self._eof_sent:
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError as exc:
                raise self._broken(exc) from exc
            self._eof_sent = True

    def abort(self) -> None:
        """Close so that the peer sees a reset, not an end of file. Does not wait."""
        self.reset_on_close()
        self.close()

    def reset_on_close(self) -> None:
        """See to it that the peer sees a reset, and no end of file, when this is closed."""
        if self.socket.fileno() >= 0:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)

    def close(self) -> None:
        """Close without waiting; tasks that use the stream get `trio.ClosedResourceError`."""
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    async def aclose(self) -> None:
        """Close, as `close` does."""
        self.close()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self.socket.fileno() < 0:
            raise trio.ClosedResourceError("this stream is closed")

    def _broken(self, exc: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
        if exc.errno == errno.EBADF or self.socket.fileno() < 0:
            return trio.ClosedResourceError("this stream is closed")
        return trio.BrokenResourceError(f"the connection broke: {exc.strerror}")

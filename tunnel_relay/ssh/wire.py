"""Reading and writing the stream below an SSH session with as few copies and scheduler passes as it allows."""

from __future__ import annotations

import os

import trio

from tunnel_relay.errors import SshDisconnectedError


class Wire:
    """Any Trio stream, read into a buffer."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read_into(self, buffer: memoryview) -> int:
        """Read what is there into *buffer*; 0 is the end of the stream.

        Raises:
          SshDisconnectedError: the stream broke.

        """
        try:
            return await self._read_into(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
            raise _broken(exc) from exc

    async def write_all(self, data: memoryview) -> None:
        """Write *data*; raises `SshDisconnectedError` where the stream broke."""
        try:
            await self._write_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
            raise _broken(exc) from exc

    def write_now(self, data: memoryview) -> int:
        """Write what can be written without waiting; return how many bytes of *data* that is.

        What is wrong with the stream is for `write_all` to find out.
        """
        del data
        return 0

    async def _read_into(self, buffer: memoryview) -> int:
        data = await self._stream.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def _write_all(self, data: memoryview) -> None:
        await self._stream.send_all(data)


class SocketWire(Wire):
    """A socket, used past Trio's wrappers: what is read goes where it is needed, without another copy."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._socket = stream.socket
        self._waited = True

    def write_now(self, data: memoryview) -> int:
        """See `Wire.write_now`."""
        try:
            return os.write(self._socket.fileno(), data)
        except OSError:
            return 0

    async def _read_into(self, buffer: memoryview) -> int:
        # One pass of the scheduler per read is enough, and waiting is one: so after a read that did not have to
        # wait the others get their turn before the next.
        if not self._waited:
            await trio.lowlevel.checkpoint()
        self._waited = False
        while True:
            try:
                return os.readv(self._socket.fileno(), [buffer])
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                self._waited = True

    async def _write_all(self, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(self._socket.fileno(), data) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)


def open_wire(stream: trio.abc.Stream) -> Wire:
    """Return the fastest way to use *stream*."""
    if type(stream) is trio.SocketStream and hasattr(os, "readv"):
        return SocketWire(stream)
    return Wire(stream)


def _broken(exc: Exception) -> SshDisconnectedError:
    cause = exc.__cause__ if isinstance(exc.__cause__, OSError) else exc
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return SshDisconnectedError(f"the connection below SSH broke: {reason or type(exc).__name__}")

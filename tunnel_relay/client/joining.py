"""Joins a stream to two open files, such as standard input and output, byte for byte."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import Protocol

import attrs
import trio

READ = 64 * 1024


class End(Protocol):
    """An open file that is read from or written to."""

    async def read(self) -> bytes:
        """Return what can be read now, waiting for it; ``b""`` at the end."""
        ...

    async def write(self, data: bytes) -> bool:
        """Write all of *data*; return whether anybody still reads it."""
        ...

    async def finish(self) -> None:
        """Say that nothing more will be written, and close it."""
        ...


@attrs.frozen(eq=False)
class _Waitable:
    """A pipe or a socket: the kernel tells when it is ready."""

    descriptor: int
    stream: trio.lowlevel.FdStream

    async def read(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(READ))
        except trio.BrokenResourceError:
            # Whoever wrote has gone without a word.
            return b""

    async def write(self, data: bytes) -> bool:
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            return False
        return True

    async def finish(self) -> None:
        if stat.S_ISSOCK(os.fstat(self.descriptor).st_mode):
            # It may be open for reading too.
            with socket.socket(fileno=os.dup(self.descriptor)) as ours, suppress(OSError):
                ours.shutdown(socket.SHUT_WR)
        await self.stream.aclose()


@attrs.frozen(eq=False)
class _Blocking:
    """A file or a terminal: only a thread can wait for it."""

    descriptor: int

    async def read(self) -> bytes:
        try:
            # A thread that waits for a terminal ends with the process.
            return await trio.to_thread.run_sync(os.read, self.descriptor, READ, abandon_on_cancel=True)
        except OSError:
            return b""

    async def write(self, data: bytes) -> bool:
        def work() -> None:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]

        try:
            await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        except OSError:
            return False
        return True

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint()


def open_end(descriptor: int) -> End:
    """Return what reads from or writes to *descriptor*, which is used for nothing else from now on."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return _Waitable(descriptor, trio.lowlevel.FdStream(descriptor))
    return _Blocking(descriptor)


async def join(stream: trio.abc.HalfCloseableStream, source: End, sink: End) -> None:
    """Send what can be read from *source*, and write to *sink* what comes, each until its end, which is passed on.

    It is over, too, when nobody reads from *sink* any more. Cancelling it loses what is on its way.

    Raises:
      trio.BrokenResourceError: the stream broke.

    """
    failure: trio.BrokenResourceError | None = None
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            nonlocal failure
            try:
                while data := await source.read():
                    await stream.send_all(data)
                await stream.send_eof()
            except trio.BrokenResourceError as exc:
                failure = exc
                nursery.cancel_scope.cancel()

        async def receive() -> None:
            nonlocal failure
            try:
                while data := await stream.receive_some(READ):
                    if not await sink.write(bytes(data)):
                        nursery.cancel_scope.cancel()
                        return
                await sink.finish()
            except trio.BrokenResourceError as exc:
                failure = exc
                nursery.cancel_scope.cancel()

        nursery.start_soon(send)
        nursery.start_soon(receive)
    if failure is not None:
        raise failure

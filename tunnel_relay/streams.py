"""Streams round streams, and what streams have in common."""

from __future__ import annotations

import attrs
import trio


class OneAtATime:
    """Refuses a second task in a place that is made for one."""

    __slots__ = ("_doing", "busy")

    def __init__(self, doing: str) -> None:
        self.busy = False
        self._doing = doing

    def __enter__(self) -> None:
        if self.busy:
            raise trio.BusyResourceError(f"another task is {self._doing} this stream")
        self.busy = True

    def __exit__(self, *_: object) -> None:
        self.busy = False


@attrs.define(eq=False)
class ReplayedStream(trio.abc.Stream):
    """A stream of which *read* has been read already: it comes again first."""

    stream: trio.abc.Stream
    read: bytes

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive from the stream below."""
        if not self.read:
            return await self.stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        size = len(self.read) if max_bytes is None else max_bytes
        data, self.read = self.read[:size], self.read[size:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send on the stream below."""
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream below does."""
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self.stream.aclose()


@attrs.define(eq=False)
class GatheringStream(trio.abc.Stream):
    """A stream whose reads may be made to wait a moment, so that each finds more."""

    stream: trio.abc.Stream
    pause: float = 0.0

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive from the stream below."""
        if self.pause:
            await trio.sleep(self.pause)
        return await self.stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send on the stream below."""
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream below does."""
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self.stream.aclose()

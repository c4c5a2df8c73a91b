"""Links that end when a test says so, and streams over them."""

from __future__ import annotations

import attrs
import trio

from session_proxy.errors import RefusedError
from session_proxy.outbound.links import LinkLostError
from session_proxy.target import Target

# The destination that refuses every connection.
REFUSED = Target.of("refused.internal", 1)


@attrs.define(eq=False)
class FakeStream(trio.abc.HalfCloseableStream):
    """A stream on a link; it breaks when the link ends."""

    link: FakeLink

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError("unused")

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError("unused")

    async def send_eof(self) -> None:
        raise AssertionError("unused")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self.link.ended.wait()
        raise trio.BrokenResourceError(self.link.reason)

    async def aclose(self) -> None:
        self.link.open_streams.discard(self)
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class FakeLink:
    """A link that ends when told to."""

    instance: str
    ended: trio.Event = attrs.field(factory=trio.Event)
    reason: str = ""
    open_streams: set[FakeStream] = attrs.field(factory=set[FakeStream])
    answers: bool = True
    breaks_at_next_open: bool = False
    lost_at_next_probe: bool = False
    flowing: bool = False
    held_up: bool = False
    away: str = ""
    away_changed: trio.Event = attrs.field(factory=trio.Event)

    @property
    def streams(self) -> int:
        return len(self.open_streams)

    async def open(self, target: Target) -> trio.abc.Stream:
        if self.breaks_at_next_open:
            self.end("cut while opening")
        if self.ended.is_set():
            raise LinkLostError(self.reason)
        if target == REFUSED:
            raise RefusedError("connection refused")
        stream = FakeStream(self)
        self.open_streams.add(stream)
        await trio.lowlevel.checkpoint()
        return stream

    async def probe(self) -> float:
        if self.lost_at_next_probe:
            self.end("lost")
            raise LinkLostError(self.reason)
        if not self.answers:
            await trio.sleep_forever()
        return 0.001

    def go_away(self, reason: str) -> None:
        """Be away because of *reason*, or be back."""
        self.away = reason
        self.away_changed.set()
        self.away_changed = trio.Event()

    async def wait_away_changed(self) -> None:
        await self.away_changed.wait()

    async def wait_lost(self) -> str:
        await self.ended.wait()
        return self.reason

    def end(self, reason: str) -> None:
        self.reason = reason
        self.ended.set()

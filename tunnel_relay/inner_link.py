"""What carries frames between two ends within one process, as a `Link` does between two processes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import attrs
import trio

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.link import MESSAGE, Source
from tunnel_relay.protocol.frames import Frame


@attrs.define(eq=False)
class InnerLink:
    """One direction: hands what its sources have, in turn, to the other end's *heed*, which must not block."""

    heed: Callable[[Frame], None]
    carried: Callable[[], None] = attrs.field(default=lambda: None, init=False)
    """Called when frames were carried: they may be answered by what goes the other way."""
    _sources: dict[Source, None] = attrs.field(factory=dict[Source, None], init=False)
    _own: deque[Frame] = attrs.field(factory=deque[Frame], init=False)
    _poked: trio.Event = attrs.field(factory=trio.Event, init=False)

    def send(self, frame: Frame) -> None:
        """Send *frame* before what the sources have."""
        self._own.append(frame)
        self.poke()

    def add(self, source: Source) -> None:
        """Send what *source* has, from now on."""
        self._sources[source] = None
        self.poke()

    def remove(self, source: Source) -> None:
        """Send nothing more of *source*."""
        self._sources.pop(source, None)

    def poke(self) -> None:
        """Ask the sources."""
        self._poked.set()

    async def run(self) -> None:
        """Carry frames until the end that they come from, or the one that they go to, finds that they are nonsense.

        Raises:
          RelayProtocolError: says what is wrong.

        """
        while True:
            self._poked = trio.Event()
            if self._carry():
                self.carried()
                await trio.lowlevel.checkpoint()
                continue
            timers = [timer for source in self._sources if (timer := source.next_timer()) is not None]
            with trio.move_on_at(min(timers, default=math.inf)):
                await self._poked.wait()

    def _carry(self) -> bool:
        """Carry a message's worth of each; return whether there was anything."""
        frames: list[Frame] = []
        while self._own:
            frames.append(self._own.popleft())
        for source in list(self._sources):
            frames += source.frames_to_send(MESSAGE, trio.current_time())
        for frame in frames:
            self.heed(frame)
        return bool(frames)


async def carry(there: InnerLink, back: InnerLink) -> str:
    """Run both directions until something that they carry is nonsense; return what is wrong."""
    faults: list[str] = []
    there.carried, back.carried = back.poke, there.poke
    async with trio.open_nursery() as nursery:

        async def run(link: InnerLink) -> None:
            try:
                await link.run()
            except RelayProtocolError as exc:
                faults.append(str(exc))
            nursery.cancel_scope.cancel()

        for link in (there, back):
            nursery.start_soon(run, link)
    return faults[0]

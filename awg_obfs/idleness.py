"""End what has been quiet for too long, without a timer for every byte.

Whatever is watched counts what it moves anyway. A sweep a few times per limit compares the counts with those of the
sweep before: that costs nothing on the way of the bytes, and is late by a fraction of the limit at most.
"""

from __future__ import annotations

from typing import Protocol

import attrs
import trio

# Sweeps per limit, and seconds between two at most: one over thousands takes a millisecond.
SWEEPS = 8
LONGEST_PAUSE = 15.0


class Watched(Protocol):
    """Something that moves bytes or datagrams."""

    def progress(self) -> int:
        """Return how many have moved so far."""
        ...

    def expire(self) -> None:
        """End: nothing has moved for too long. Must not wait."""
        ...


@attrs.define
class _LastSeen:
    progress: int
    at: float


@attrs.define(eq=False)
class IdleWatch:
    """What is watched, all with the same *limit* in seconds."""

    limit: float
    _watched: dict[Watched, _LastSeen] = attrs.field(factory=dict[Watched, _LastSeen], init=False, repr=False)

    def add(self, watched: Watched) -> None:
        """Watch *watched* from now on."""
        self._watched[watched] = _LastSeen(watched.progress(), trio.current_time())

    def discard(self, watched: Watched) -> None:
        """Do not watch *watched* any more."""
        self._watched.pop(watched, None)

    async def run(self) -> None:
        """Sweep, for ever."""
        while True:
            await trio.sleep(min(self.limit / SWEEPS, LONGEST_PAUSE))
            now = trio.current_time()
            for watched, seen in list(self._watched.items()):
                progress = watched.progress()
                if progress != seen.progress:
                    seen.progress, seen.at = progress, now
                elif now - seen.at >= self.limit:
                    watched.expire()

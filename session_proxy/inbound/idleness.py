"""End what has been quiet for too long, without a timer for every byte.

Each thing watched counts its bytes anyway. A sweep a few times per limit compares the counts with those of
the sweep before: that costs nothing on the way of the bytes, and is late by a fraction of the limit at most.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import attrs
import trio

# Sweeps per limit: what is idle is ended up to a quarter of the limit late. And seconds between two sweeps at
# most, for what has a shorter limit of its own; a sweep over thousands takes a millisecond.
SWEEPS = 8
LONGEST_PAUSE = 15.0


@attrs.define(eq=False)
class Watched(ABC):
    """Something that moves bytes. *quiet_limit*, where set, replaces the common limit (in seconds)."""

    quiet_limit: float | None = attrs.field(default=None, kw_only=True)
    _seen: int = attrs.field(default=-1, init=False)
    _since: float = attrs.field(default=0.0, init=False)

    @abstractmethod
    def progress(self) -> int:
        """Return how many bytes have moved so far."""

    @abstractmethod
    def expire(self) -> None:
        """End: nothing has moved for too long. Must not wait."""

    def is_quiet(self, now: float, limit: float) -> bool:
        """Compare with the sweep before; tell whether nothing has moved for *limit* seconds."""
        progress = self.progress()
        if progress != self._seen:
            self._seen = progress
            self._since = now
            return False
        return now - self._since >= (limit if self.quiet_limit is None else self.quiet_limit)


@attrs.define(eq=False)
class Idleness:
    """What is watched, all with the same *limit* in seconds."""

    limit: float
    _watched: set[Watched] = attrs.field(factory=set[Watched], init=False, repr=False)

    def add(self, watched: Watched) -> None:
        """Watch *watched* from the next sweep on."""
        self._watched.add(watched)

    def discard(self, watched: Watched) -> None:
        """Do not watch *watched* any more."""
        self._watched.discard(watched)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await trio.sleep(min(self.limit / SWEEPS, LONGEST_PAUSE))
            now = trio.current_time()
            for watched in [each for each in self._watched if each.is_quiet(now, self.limit)]:
                watched.expire()

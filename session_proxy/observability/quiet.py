"""Tell of what comes in floods once in a while, and how much of it there was."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

import attrs

# How many kinds are remembered; of more, the one that was told longest ago is forgotten.
MOST_KINDS = 4096

T = TypeVar("T")


@attrs.define(eq=False)
class _Kind(Generic[T]):
    told_at: float
    last: T
    more: int = 0


@attrs.define(eq=False)
class Quiet(Generic[T]):
    """Lets one of a kind pass, and counts the others.

    Attributes:
      seconds: For so long.

    """

    seconds: float
    # The kind that was told longest ago comes first.
    _kinds: dict[Hashable, _Kind[T]] = attrs.field(factory=dict[Hashable, _Kind[T]], init=False)
    # What was counted of kinds that are forgotten.
    _forgotten: list[_Kind[T]] = attrs.field(factory=list[_Kind[T]], init=False)

    def passes(self, kind: Hashable, item: T, now: float) -> int | None:
        """Return how many of that *kind* were not told since the last one; None where *item* is not, either."""
        known = self._kinds.get(kind)
        if known is not None and now < known.told_at + self.seconds:
            known.last = item
            known.more += 1
            return None
        more = 0 if known is None else self._kinds.pop(kind).more
        if len(self._kinds) >= MOST_KINDS:
            oldest = self._kinds.pop(next(iter(self._kinds)))
            if oldest.more and len(self._forgotten) < MOST_KINDS:
                self._forgotten.append(oldest)
        self._kinds[kind] = _Kind(now, item)
        return more

    def overdue(self, now: float = math.inf) -> list[tuple[T, int]]:
        """Return what to tell of kinds of which none has come since their time was over.

        That is the last of each, and how many others were not told. Without *now* it is all that was counted.
        """
        told = [(each.last, each.more - 1) for each in self._forgotten]
        self._forgotten.clear()
        while self._kinds:
            kind, known = next(iter(self._kinds.items()))
            if now < known.told_at + self.seconds:
                break
            del self._kinds[kind]
            if known.more:
                told.append((known.last, known.more - 1))
                if now < math.inf:
                    self._kinds[kind] = _Kind(now, known.last)
        return told

"""Tell of what comes in floods once in a while, and how much of it there was."""

from __future__ import annotations

from collections.abc import Hashable

import attrs

# How many kinds are remembered; of more, the one that was told longest ago is forgotten.
MOST_KINDS = 4096


@attrs.define(eq=False)
class _Kind:
    told_at: float
    more: int = 0


@attrs.define(eq=False)
class Quiet:
    """Lets one of a kind pass, and counts the others.

    Attributes:
      seconds: For so long.

    """

    seconds: float
    # The kind that was told longest ago comes first.
    _kinds: dict[Hashable, _Kind] = attrs.field(factory=dict[Hashable, _Kind], init=False)

    def passes(self, kind: Hashable, now: float) -> int | None:
        """Return how many of that *kind* were not told since the last one; None where this one is not, either."""
        known = self._kinds.get(kind)
        if known is not None and now < known.told_at + self.seconds:
            known.more += 1
            return None
        more = 0 if known is None else self._kinds.pop(kind).more
        if len(self._kinds) >= MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]
        self._kinds[kind] = _Kind(now)
        return more

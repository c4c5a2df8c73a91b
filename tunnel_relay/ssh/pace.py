"""How fast bytes come, of late."""

from __future__ import annotations

import math

import attrs

# An average over about this many seconds: long enough to bridge the pauses of a stream that flows, short enough
# to forget soon one that has ended.
MEMORY = 1.0


@attrs.define(eq=False)
class Pace:
    """A running average that forgets exponentially; *at* is when it was last told of bytes."""

    at: float
    _remembered: float = attrs.field(default=0.0, init=False)

    def count(self, size: int, now: float) -> None:
        """Take note of *size* bytes."""
        self._remembered = self._remembered * math.exp((self.at - now) / MEMORY) + size
        self.at = now

    def per_second(self, now: float) -> float:
        """Return how many bytes come in a second."""
        return self._remembered * math.exp((self.at - now) / MEMORY) / MEMORY

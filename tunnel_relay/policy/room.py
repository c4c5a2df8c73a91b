"""How much memory may be taken by what waits to be passed on: so much in all, shared out where it gets scarce.

While there is room, whoever has something waiting may have any part of it. When it is used up, those that have more
than an equal share get no more; the others go on, up to theirs, for as long as there is not twice as much in all. So
one slow link does not keep all others from working.
"""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class Room:
    """Memory, and who has some of it.

    Attributes:
      most: Bytes that all holders may have together; twice as many where they have no more than equal shares.
      held: Bytes that they have.
      holders: How many there are, with or without.

    """

    most: float
    held: int = attrs.field(default=0, init=False)
    holders: int = attrs.field(default=0, init=False)

    def enter(self) -> None:
        """Let there be one holder more, which has nothing yet."""
        self.holders += 1

    def leave(self, held: int) -> None:
        """Forget a holder that has *held*."""
        self.holders -= 1
        self.held -= held

    def take(self, held: int, more: int) -> bool:
        """Give a holder that has *held* so many bytes *more*; return whether there was room for them."""
        held_then = self.held + more
        if held_then > 2 * self.most or (held_then > self.most and held + more > self.most / self.holders):
            return False
        self.held = held_then
        return True

    def give_back(self, count: int) -> None:
        """Take so many bytes back from a holder."""
        self.held -= count

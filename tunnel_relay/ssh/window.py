"""How much a channel may receive, and when it may receive more (RFC 4254, section 5.2)."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from tunnel_relay.errors import SshDisconnectedError

# The peer learns of free space when this part of the window is free: often enough never to run dry within a
# round trip, seldom enough to cost nothing.
_ADJUST_PART = 4


@attrs.define(eq=False)
class WindowBudget:
    """What the channels of one connection may grow by, all together."""

    left: int

    def lease(self, size: int) -> bool:
        """Take *size* bytes, if they are there."""
        if size > self.left:
            return False
        self.left -= size
        return True


@attrs.define(eq=False)
class ReceiveWindow:
    """The receiving half of a channel's flow control; says when to send an adjustment, and of how much.

    A window bounds throughput to window / round trip. So it doubles when its reader, who took everything there
    was, received half a window within one round trip: the window, not the path or the reader, was the limit.
    """

    size: int
    limit: int
    budget: WindowBudget
    clock: Callable[[], float]
    round_trip: Callable[[], float]
    """The connection's, in seconds; 0 while nobody knows it."""
    _open: int = attrs.field(init=False)
    _freed: int = attrs.field(default=0, init=False)
    _leased: int = attrs.field(default=0, init=False)
    _epoch: float = attrs.field(default=0.0, init=False)
    _epoch_bytes: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._open = self.size

    def arrived(self, length: int) -> None:
        """Count *length* bytes from the peer; raises `SshDisconnectedError` where it may not send as many."""
        self._open -= length
        if self._open < 0:
            raise SshDisconnectedError("the server sent more than the channel's window allows")

    def consumed(self, length: int, *, drained: bool) -> int:
        """Count *length* bytes that the reader took, perhaps the last that were there (*drained*).

        Returns how much to tell the peer that it may send now; 0: nothing yet.
        """
        self._freed += length
        self._epoch_bytes += length
        if self._freed * _ADJUST_PART < self.size:
            return 0
        more = self._freed + self._growth(drained=drained)
        self._freed = 0
        self._open += more
        return more

    def release(self) -> None:
        """Give back to the budget what the window grew by."""
        self.budget.left += self._leased
        self._leased = 0

    def _growth(self, *, drained: bool) -> int:
        now = self.clock()
        elapsed, self._epoch = now - self._epoch, now
        taken, self._epoch_bytes = self._epoch_bytes, 0
        # At this pace, how much passes in a round trip?
        busy = drained and taken * self.round_trip() * 2 > self.size * elapsed
        more = min(self.size, self.limit - self.size)
        if not busy or more <= 0 or not self.budget.lease(more):
            return 0
        self.size += more
        self._leased += more
        return more

"""Where a server's peer is, and what the log says when it moves.

Roaming is told, since it explains a pause. Two clients that use one key look like a peer that never stops moving:
each takes the session from the other. That has to be told once, in words, and not as one line for every move.
"""

from __future__ import annotations

import math
from collections import deque
from operator import itemgetter

import attrs
import trio

from awg_obfs.addresses import shown
from awg_obfs.protocol.address import Address
from session_proxy.observability.logging import Log

# Nobody reads more about one peer; what happens in between is counted.
LINE_EVERY = 10.0

# Moves that belong together. A client that only roams makes a few of them in this time, even on a train.
WINDOW = 30.0
MANY_MOVES = 6

# Once the log says what is the matter, each further move adds nothing.
WARNING_EVERY = 300.0
LINE_AFTER_WARNING = 60.0


@attrs.define(eq=False)
class PeerMoves:
    """Follows the peer *name*, and tells *log* of its moves."""

    name: str
    _log: Log = attrs.field(repr=False)
    _place: Address | None = attrs.field(default=None, init=False)
    _recent: deque[tuple[float, Address, Address]] = attrs.field(
        factory=lambda: deque[tuple[float, Address, Address]](maxlen=MANY_MOVES), init=False
    )
    _untold: int = attrs.field(default=0, init=False)
    _next_line: float = attrs.field(default=-math.inf, init=False)
    _next_warning: float = attrs.field(default=-math.inf, init=False)

    def found_at(self, address: Address, *, has_session: bool) -> Address | None:
        """Take note that the peer has proven to be at *address*.

        Returns where its session was before, if it *has_session* and that has moved.
        """
        old, self._place = self._place, address
        if old is None or old == address or not has_session:
            return None
        now = trio.current_time()
        self._recent.append((now, old, address))
        self._untold += 1
        if self._is_in_two_places(now):
            self._warn(now)
        if now >= self._next_line:
            times = {"moves": self._untold} if self._untold > 1 else {}
            self._log.info(
                "awg peer moved", link=self.name, **{"from": shown(old)}, to=shown(address), **times
            )
            is_explained = now < self._next_warning
            self._untold = 0
            self._next_line = now + (LINE_AFTER_WARNING if is_explained else LINE_EVERY)
        return old

    def _warn(self, now: float) -> None:
        if now < self._next_warning:
            return
        self._log.warning(
            "awg peer in two places",
            link=self.name,
            message=f'peer "{self.name}" comes from two places at once; two clients seem to use its key: '
            "give each its own",
        )
        self._next_warning, self._next_line = now + WARNING_EVERY, now + LINE_AFTER_WARNING

    def _is_in_two_places(self, now: float) -> bool:
        moves = [(old, new) for time, old, new in self._recent if time > now - WINDOW]
        if len(moves) >= MANY_MOVES:
            return True
        # Clients take another port when they hear nothing, so to and fro between two hosts counts as well.
        return len(moves) >= 3 and any(
            view(moves[-3][0]) == view(moves[-2][1]) != view(moves[-3][1]) == view(moves[-1][1])
            for view in (tuple, itemgetter(0))
        )

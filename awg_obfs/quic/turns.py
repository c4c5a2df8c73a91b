"""Whose bytes go to the engine next, where more streams have some than can be sent at once.

An engine takes turns between streams packet by packet. With fifty transfers at once, every packet of a burst belongs
to another stream then: the peer wakes fifty tasks, each of which writes a kilobyte, where one could have written all.
So only a few streams at a time fill the engine, a good piece each; that doubles what fifty of them carry together.
What is small goes at once, out of turn, so that nobody who types or asks waits for those who copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import attrs

from awg_obfs.quic.settings import KIB

# How many have a turn at the same time. Several, for some may be held up by their readers.
TURNS = 4

# What a turn is worth: what the path carries in this many seconds, within bounds.
_TURN_TIME = 0.02
_SMALLEST_TURN, _LARGEST_TURN = 16 * KIB, 256 * KIB

# A turn is over when no more than this is left of it in the engine, which so never runs dry.
_LOW = 32 * KIB

# Or when nothing of it has left for so long, in seconds: its reader may be held up.
PATIENCE = 0.025

# What may wait out of turn.
SMALL = 16 * KIB


@attrs.define(eq=False)
class _Turn:
    left: int
    unsent: int
    since: float
    used: bool = False


@attrs.define(eq=False)
class Turns:
    """Which streams may write, and which wait for it, first come, first served.

    Attributes:
      unsent: Tells how many bytes of a stream wait in the engine to leave for the first time.
      buffer: How many may.

    """

    unsent: Callable[[int], int]
    buffer: int
    _worth: int = _LARGEST_TURN
    _turns: dict[int, _Turn] = attrs.field(factory=dict[int, _Turn])
    # Ordered; the values mean nothing.
    _waiting: dict[int, None] = attrs.field(factory=dict[int, None])

    def __len__(self) -> int:
        """Return how many streams have a turn, or wait for one."""
        return len(self._turns.keys() | self._waiting.keys())

    @property
    def contested(self) -> bool:
        """Whether any stream waits."""
        return bool(self._waiting)

    def room(self, stream_id: int, wanted: int, now: float) -> int:
        """Return how many bytes the stream may write now, of *wanted*; 0 or less where it has to wait."""
        unsent = self.unsent(stream_id)
        free = self.buffer - unsent
        if free <= 0:
            return 0
        turn = self._turns.get(stream_id)
        if turn is None:
            if unsent + wanted <= min(SMALL, self.buffer):
                return wanted
            if not self._is_any_free(now):
                return 0
            turn = self._turns[stream_id] = _Turn(self._worth, unsent, now)
        elif turn.left <= 0 and not self._waiting:
            turn.left = self._worth
        return min(free, turn.left)

    def wrote(self, stream_id: int, amount: int) -> None:
        """The stream wrote *amount* bytes."""
        turn = self._turns.get(stream_id)
        if turn is not None:
            turn.left -= amount
            turn.used = True

    def wait(self, stream_id: int) -> None:
        """Queue the stream for `admit`."""
        self._waiting[stream_id] = None

    def forget(self, stream_id: int) -> None:
        """The stream is over."""
        self._turns.pop(stream_id, None)
        self._waiting.pop(stream_id, None)

    def flushed(self, now: float, rate: float) -> None:
        """The engine has sent what it could, over a path that carries *rate* bytes per second."""
        self._worth = int(min(max(rate * _TURN_TIME, _SMALLEST_TURN), _LARGEST_TURN))
        self._end_turns(now)

    def admit(self, held: set[int], now: float) -> Iterator[int]:
        """Yield those of the waiting streams that may write now, and have them wait no longer; *held* ones may not."""
        for stream_id in list(self._waiting):
            if stream_id in held or (stream_id not in self._turns and len(self._turns) >= TURNS):
                continue
            # One that waits has more than what may go out of turn.
            turn = self._turns.get(stream_id)
            if turn is not None and turn.left <= 0:
                continue
            if self.room(stream_id, self.buffer, now) > 0:
                del self._waiting[stream_id]
                yield stream_id

    def next_timer(self) -> float:
        """Return when to call `flushed` and `admit` at the latest."""
        if not self._waiting or len(self._turns) < TURNS:
            return math.inf
        return min(turn.since for turn in self._turns.values()) + PATIENCE

    def _is_any_free(self, now: float) -> bool:
        if len(self._turns) >= TURNS and not self._waiting:
            self._end_turns(now)
        return len(self._turns) < TURNS

    def _end_turns(self, now: float) -> None:
        for stream_id, turn in list(self._turns.items()):
            unsent = self.unsent(stream_id)
            if unsent != turn.unsent:
                turn.unsent, turn.since = unsent, now
            if (turn.used and unsent <= _LOW) or now >= turn.since + PATIENCE:
                del self._turns[stream_id]

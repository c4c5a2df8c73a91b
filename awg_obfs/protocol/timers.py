"""WireGuard's five timers for each peer (paper, section 6), and the one clock face for all of them.

The names and the moments are the reference's. Setting a timer is a store: `Schedule` is only told of a peer whose
earliest timer may have become earlier, and finds out by itself that one was put off.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import math
from collections.abc import Callable

# All in seconds.
REKEY_AFTER_TIME = 120.0
REJECT_AFTER_TIME = 180.0
REKEY_TIMEOUT = 5.0
KEEPALIVE_TIMEOUT = 10.0
REKEY_TIMEOUT_JITTER = 0.334
NEW_HANDSHAKE_TIMEOUT = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
REFRESH_WHEN_RECEIVING = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
FORGET_KEYS_AFTER = 3 * REJECT_AFTER_TIME

# The reference counts retries, not time: 90 s of them.
MAX_RETRIES = 18

# An initiation that comes this soon after the last one of the peer is not looked at further.
INITIATION_INTERVAL = 0.02

NEVER = math.inf


class Timer(enum.Enum):
    """What there is to do when time is up."""

    REHANDSHAKE = enum.auto()
    RETRANSMIT_HANDSHAKE = enum.auto()
    SEND_KEEPALIVE = enum.auto()
    NEW_HANDSHAKE = enum.auto()
    FORGET_KEYS = enum.auto()
    PERSISTENT_KEEPALIVE = enum.auto()


class PeerTimers:
    """When what is due for one peer. A timer that is not running stands at `NEVER`."""

    __slots__ = (
        "_schedule",
        "another_keepalive",
        "attempts",
        "forget_keys",
        "new_handshake",
        "owner",
        "persistent",
        "persistent_interval",
        "rehandshake",
        "retransmit",
        "retries",
        "scheduled",
        "send_keepalive",
        "sent_last_minute_handshake",
    )

    def __init__(self, schedule: Schedule, owner: bytes) -> None:
        """*owner* is the public key of the peer."""
        self._schedule = schedule
        self.owner = owner
        self.persistent_interval = 0.0
        self.rehandshake = NEVER
        self.retransmit = NEVER
        self.send_keepalive = NEVER
        self.new_handshake = NEVER
        self.forget_keys = NEVER
        self.persistent = NEVER
        self.another_keepalive = False
        # Since somebody last asked for a handshake, which is what the reference gives up by.
        self.retries = 0
        # Since the last handshake that came about.
        self.attempts = 0
        self.sent_last_minute_handshake = False
        # Where the schedule has this peer; see there.
        self.scheduled = NEVER

    # -- what happens

    def sent(self, now: float, *, data: bool) -> None:
        """Authenticated packets were sent; *data* unless they were only keepalives or handshake messages."""
        self.send_keepalive = NEVER
        if self.persistent_interval:
            self._set_persistent(now + self.persistent_interval)
        if data and self.new_handshake == NEVER:
            self.new_handshake = now + NEW_HANDSHAKE_TIMEOUT + self._schedule.jitter()
            self._started(self.new_handshake)

    def received(self, now: float, *, data: bool) -> None:
        """Authenticated packets were received."""
        self.new_handshake = NEVER
        if self.persistent_interval:
            self._set_persistent(now + self.persistent_interval)
        if data:
            if self.send_keepalive == NEVER:
                self.send_keepalive = now + KEEPALIVE_TIMEOUT
                self._started(self.send_keepalive)
            else:
                self.another_keepalive = True

    def initiation_sent(self, now: float) -> None:
        """Somebody must answer in time."""
        self.attempts += 1
        self.rehandshake = NEVER
        self.retransmit = now + REKEY_TIMEOUT + self._schedule.jitter()
        self._started(self.retransmit)

    def rehandshake_at(self, when: float) -> None:
        """Begin a handshake then, unless one is sent or comes about before."""
        self.rehandshake = when
        self._started(when)

    def session_derived(self, now: float) -> None:
        """There are keys, to be forgotten some day."""
        self.forget_keys = now + FORGET_KEYS_AFTER
        self._started(self.forget_keys)

    def handshake_complete(self) -> None:
        """The other side has shown that it has the keys."""
        self.rehandshake = self.retransmit = NEVER
        self.retries = self.attempts = 0
        self.sent_last_minute_handshake = False

    def gave_up(self, now: float) -> None:
        """Nobody answers. Keys that are left have the usual time."""
        self.attempts = 0
        self.send_keepalive = NEVER
        if self.forget_keys == NEVER:
            self.session_derived(now)

    def keepalive_sent_late(self, now: float) -> None:
        """Data came while the keepalive was pending: there shall be another one."""
        if self.another_keepalive:
            self.another_keepalive = False
            self.send_keepalive = now + KEEPALIVE_TIMEOUT
            self._started(self.send_keepalive)

    def set_persistent_interval(self, interval: float, now: float) -> None:
        """Keep the path open from now on with something sent every *interval* seconds; 0 ends that."""
        self.persistent_interval = interval
        self.persistent = NEVER
        if interval:
            self._set_persistent(now)

    def stop(self) -> None:
        """Stop all timers."""
        self.rehandshake = self.retransmit = self.send_keepalive = self.new_handshake = NEVER
        self.forget_keys = self.persistent = NEVER

    # -- what is due

    def earliest(self) -> float:
        """Return when the next timer is due."""
        return min(
            self.rehandshake,
            self.retransmit,
            self.send_keepalive,
            self.new_handshake,
            self.forget_keys,
            self.persistent,
        )

    def take_due(self, now: float) -> Timer | None:
        """Stop the timer that has been due for longest, if any, and return it."""
        when = self.earliest()
        if when > now:
            return None
        if when == self.rehandshake:
            # Before one that is repeated, whose retries may be used up.
            self.rehandshake = NEVER
            return Timer.REHANDSHAKE
        if when == self.retransmit:
            self.retransmit = NEVER
            return Timer.RETRANSMIT_HANDSHAKE
        if when == self.send_keepalive:
            self.send_keepalive = NEVER
            return Timer.SEND_KEEPALIVE
        if when == self.new_handshake:
            self.new_handshake = NEVER
            return Timer.NEW_HANDSHAKE
        if when == self.forget_keys:
            self.forget_keys = NEVER
            return Timer.FORGET_KEYS
        self.persistent = NEVER
        return Timer.PERSISTENT_KEEPALIVE

    def _set_persistent(self, when: float) -> None:
        self.persistent = when
        self._started(when)

    def _started(self, when: float) -> None:
        if when < self.scheduled:
            self._schedule.put(self, when)


class Schedule:
    """Which peer is due next, among many: a heap whose entries may be too early, never too late.

    Timers are put off with every packet, so an entry is only corrected when its time has come: each peer wakes its
    device once in some seconds for nothing. `PeerTimers.scheduled` says which of a peer's entries counts; others
    are dropped when met.
    """

    __slots__ = ("_heap", "_numbers", "jitter")

    def __init__(self, jitter: Callable[[], float]) -> None:
        """*jitter* keeps two sides, and many peers, from acting in step: below `REKEY_TIMEOUT_JITTER`."""
        self.jitter = jitter
        self._heap: list[tuple[float, int, PeerTimers]] = []
        self._numbers = itertools.count()

    def put(self, timers: PeerTimers, when: float) -> None:
        """Have *timers* looked at, at *when*."""
        timers.scheduled = when
        heapq.heappush(self._heap, (when, next(self._numbers), timers))

    def next(self) -> float | None:
        """Return when to look next, or `None` if no timer is running."""
        heap = self._heap
        while heap and heap[0][2].scheduled != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: float) -> PeerTimers | None:
        """Return timers of which one is due, or `None`. Call it again when that was seen to."""
        while (when := self.next()) is not None and when <= now:
            timers = self._heap[0][2]
            due = timers.earliest()
            if due <= now:
                return timers
            heapq.heappop(self._heap)
            timers.scheduled = NEVER
            if due < NEVER:
                self.put(timers, due)
        return None

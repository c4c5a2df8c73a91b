"""How stream frames arrive once and in order: retransmission, reordering, pacing.

Theory: each direction numbers its frames from 0 and keeps each until *that* frame is acknowledged (acks are
selective, never cumulative). The counters belong to the session and outlive every WebSocket. TCP below loses
nothing; what is lost is what was under way when a WebSocket broke, or what the agent refused because it was not
ready. The reference resends only its oldest frame, every 100 ms, which recovers from a burst at 10 KiB/s.

Three things send a frame again here, and none of them can set off a storm:

* Later frames were acknowledged: it is lost, and goes at once (RFC 9002, section 6.1).
* Nothing at all was acknowledged for a timeout: the oldest few go, then only the oldest, ever more slowly
  (RFC 6298). An agent acknowledges what it has handed on, so this is also what a slow port looks like.
* One of those was answered promptly: the far end is back, and twice as many go with every answer.

What the path cannot take piles up in buffers on the way. So the window of unacknowledged bytes grows only while
the round trip stays short, as LEDBAT's does (RFC 6817).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Generic, TypeVar

import attrs

F = TypeVar("F")

# The reference's constants (session-manager-plugin, config.go), in seconds.
INITIAL_RTT = 0.1
INITIAL_RTO = 0.2
MAX_RTO = 1.0
CLOCK_GRANULARITY = 0.01

# How many of the oldest frames go when nothing is acknowledged. The timeout then doubles, but the oldest frame
# finds out whether the far end is there again, so it does not wait for longer than this, in seconds.
PROBES = 8
PROBE_INTERVAL = 1.0
MAX_BACKOFF = 8.0
# An answer to a frame that was sent twice measures nothing, but hints that the line may be slow: until a round trip
# has been measured, the timeout is as long as that answer took, up to this, in seconds.
MAX_FLOOR = 3.0

# Later frames that must have been acknowledged before one is taken for lost (RFC 9002, section 6.1.1), unless a
# round trip has passed as well.
REORDERING = 3

# Unacknowledged bytes: where a session starts, and how far it may grow. The far end buffers them all.
INITIAL_WINDOW = 64 * 1024
MAX_WINDOW = 1024 * 1024
# Frames from the oldest unacknowledged one on, however small, and though some of them were acknowledged: more than the
# pace sends in a second, a hundredth of what the agent puts into order. Behind one that it refuses, because its port
# does not read, it takes and acknowledges all others.
MAX_UNACKED = 1024

# Queueing that the window tolerates on the path, in seconds (RFC 6817 allows at most 0.1).
TARGET_DELAY = 0.05
# How long a shortest round trip is believed: routes change.
BASE_LIFETIME = 60.0

# Frames that may wait for an earlier one; the peer keeps them until then, so refusing more loses nothing.
MAX_REORDERED = 10_000
MAX_REORDERED_BYTES = 8 * 1024 * 1024


@attrs.define(eq=False)
class RoundTrip:
    """The smoothed round trip and what follows from it, in seconds, as the reference computes them."""

    rtt: float = INITIAL_RTT
    variation: float = 0.0
    timeout: float = INITIAL_RTO

    def sample(self, elapsed: float) -> None:
        """Count one measured round trip."""
        self.variation += (abs(self.rtt - elapsed) - self.variation) / 4
        self.rtt += (elapsed - self.rtt) / 8
        self.timeout = min(MAX_RTO, self.patience)

    @property
    def patience(self) -> float:
        """The timeout without the reference's ceiling, which on a slow line is below the round trip itself."""
        return self.rtt + max(CLOCK_GRANULARITY, 4 * self.variation)


@attrs.define(eq=False)
class BaseDelay:
    """The shortest round trip of the last minute or two: the path without its queues."""

    _before: float = math.inf
    _now: float = math.inf
    _since: float = -math.inf

    def update(self, elapsed: float, now: float) -> float:
        """Count one measured round trip, and return the shortest."""
        if now - self._since > BASE_LIFETIME:
            self._before, self._now, self._since = self._now, math.inf, now
        self._now = min(self._now, elapsed)
        return min(self._before, self._now)


@attrs.define(eq=False)
class _Sent:
    message: bytes
    first_sent_at: float
    sent_at: float
    times: int = 1
    overtaken: int = 0


@attrs.define(eq=False)
class SendBuffer:
    """The frames of one direction that are not acknowledged yet."""

    round_trip: RoundTrip = attrs.field(factory=RoundTrip)
    window: int = INITIAL_WINDOW
    unacked_bytes: int = 0
    next_sequence: int = 0
    retransmitted: int = 0
    _base: BaseDelay = attrs.field(factory=BaseDelay, init=False)
    # In the order of their numbers, because they are added in it.
    _sent: dict[int, _Sent] = attrs.field(factory=dict[int, _Sent], init=False)
    _lost: set[int] = attrs.field(factory=set[int], init=False)
    _progress_at: float = attrs.field(default=-math.inf, init=False)
    _backoff: int = attrs.field(default=0, init=False)
    _probes: int = attrs.field(default=PROBES, init=False)
    _floor: float = attrs.field(default=0.0, init=False)

    @property
    def has_room(self) -> bool:
        """Whether another frame may be sent."""
        oldest = next(iter(self._sent), self.next_sequence)
        return self.unacked_bytes < self.window and self.next_sequence - oldest < MAX_UNACKED

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[int]:
        return iter(self._sent)

    def add(self, message: bytes, now: float) -> None:
        """Keep *message*, sent now with the number `next_sequence`."""
        self._sent[self.next_sequence] = _Sent(message, now, now)
        self.next_sequence += 1
        self.unacked_bytes += len(message)

    def acknowledge(self, sequence: int, now: float) -> None:
        """Forget the frame *sequence*; a number that is not waiting is ignored."""
        acked = self._sent.pop(sequence, None)
        if acked is None:
            return
        self._lost.discard(sequence)
        self._progress_at = now
        self.unacked_bytes -= len(acked.message)
        elapsed = now - acked.sent_at
        if acked.times == 1:
            # Karn's rule: an ack of a resent frame does not say which of the two it answers.
            self.round_trip.sample(elapsed)
            self._backoff, self._probes, self._floor = 0, PROBES, 0.0
            self._adjust_window(elapsed, len(acked.message), now)
        else:
            self._floor = min(MAX_FLOOR, now - acked.first_sent_at)
            if elapsed <= self._prompt:
                self._recover(now)
        self._overtake(sequence, acked, now)

    def _overtake(self, sequence: int, acked: _Sent, now: float) -> None:
        for earlier, frame in self._sent.items():
            if earlier > sequence:
                break
            if frame.sent_at <= acked.sent_at:
                frame.overtaken += 1
                if frame.overtaken >= REORDERING or now - frame.sent_at > self.round_trip.rtt:
                    self._lost.add(earlier)

    def _recover(self, now: float) -> None:
        self._backoff = 0
        self._probes = min(2 * self._probes, MAX_UNACKED)
        for number, frame in itertools.islice(self._sent.items(), self._probes):
            if now - frame.sent_at > self._prompt:
                self._lost.add(number)

    def _adjust_window(self, elapsed: float, size: int, now: float) -> None:
        base = self._base.update(elapsed, now)
        if elapsed <= max(2 * base, base + TARGET_DELAY):
            self.window = min(MAX_WINDOW, self.window + size)
        else:
            self.window = max(INITIAL_WINDOW, self.window - size // 2)

    def overdue(self, now: float, most: int) -> list[bytes]:
        """Return up to *most* frames to be sent again, oldest first and byte for byte."""
        if most <= 0 or not self._sent:
            return []
        timed_out = [number for number, deadline in self._deadlines() if deadline <= now]
        if timed_out:
            if self._backoff:
                # The first probes were in vain.
                self._probes = 1
                del timed_out[1:]
            self._backoff += 1
        due = sorted(self._lost.union(timed_out))[:most]
        for number in due:
            frame = self._sent[number]
            frame.times += 1
            frame.overtaken = 0
            frame.sent_at = now
        self._lost.difference_update(due)
        self.retransmitted += len(due)
        return [self._sent[number].message for number in due]

    def next_deadline(self) -> float:
        """Return when `overdue` next has something; infinite where nothing waits."""
        if self._lost:
            return -math.inf
        return min((deadline for _, deadline in self._deadlines()), default=math.inf)

    def _deadlines(self) -> Iterator[tuple[int, float]]:
        patience = self._timeout(self._backoff)
        oldest = min(patience, max(PROBE_INTERVAL, self._timeout(0)))
        for number, frame in itertools.islice(self._sent.items(), self._probes):
            yield number, max(frame.sent_at, self._progress_at) + oldest
            oldest = patience

    def resend_all(self, now: float) -> None:
        """Take everything unacknowledged for lost: the connection below is a new one, maybe by another way."""
        self.window = INITIAL_WINDOW
        self._base = BaseDelay()
        self._backoff, self._probes, self._floor = 0, PROBES, 0.0
        self._progress_at = now
        self._lost.update(self._sent)

    @property
    def _prompt(self) -> float:
        return max(INITIAL_RTO, self.round_trip.patience)

    def _timeout(self, backoff: int) -> float:
        return min(MAX_BACKOFF, max(self._floor, self._prompt) * 2 ** min(backoff, 10))


@attrs.define(eq=False)
class ReceiveBuffer(Generic[F]):
    """Brings frames into order. `expected` is the number of the next one to deliver."""

    expected: int = 0
    duplicates: int = 0
    _early: dict[int, tuple[F, int]] = attrs.field(factory=dict[int, "tuple[F, int]"], init=False)
    _early_bytes: int = attrs.field(default=0, init=False)

    @property
    def buffered(self) -> int:
        """How many frames wait for an earlier one."""
        return len(self._early)

    def is_next(self, sequence: int) -> bool:
        """Tell whether the frame *sequence* can be delivered now; then call `advance`."""
        return sequence == self.expected

    def keep(self, sequence: int, frame: F, size: int) -> bool:
        """Take a frame that is not next. Return whether to acknowledge it.

        One that was delivered already is acknowledged again: the peer repeats it because our first ack was lost,
        and the reference, which stays silent then, hangs its sessions this way.
        """
        if sequence < self.expected:
            self.duplicates += 1
            return sequence >= 0
        if sequence in self._early:
            self.duplicates += 1
            return True
        if len(self._early) >= MAX_REORDERED or self._early_bytes + size > MAX_REORDERED_BYTES:
            return False
        self._early[sequence] = (frame, size)
        self._early_bytes += size
        return True

    def advance(self) -> None:
        """Say that the next frame has been delivered."""
        self.expected += 1

    def pop(self) -> F | None:
        """Return the next frame if it is here already; it counts as delivered."""
        found = self._early.pop(self.expected, None)
        if found is None:
            return None
        frame, size = found
        self._early_bytes -= size
        self.expected += 1
        return frame


@attrs.define(eq=False)
class Pacer:
    """A token bucket over frames: *rate* a second, at most *burst* at once."""

    rate: float
    burst: float
    _tokens: float = attrs.field(init=False)
    _at: float = attrs.field(default=-math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._tokens = self.burst

    def available(self, now: float) -> int:
        """Return how many frames may go now."""
        if now > self._at:
            gained = self.rate * (now - self._at) if self._at > -math.inf else self.burst
            self._tokens = min(self.burst, self._tokens + gained)
            self._at = now
        # Rounding must not turn the very moment of `next_token` into one that is too early.
        return int(self._tokens + 1e-6)

    def spend(self, frames: int) -> None:
        """Count *frames* that went."""
        self._tokens -= frames

    def next_token(self, now: float) -> float:
        """Return when at least one frame may go; *now* where one may already."""
        if self.available(now) >= 1:
            return now
        return now + (1 - self._tokens) / self.rate

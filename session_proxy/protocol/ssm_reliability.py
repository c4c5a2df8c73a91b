"""How stream frames arrive once and in order: retransmission, reordering, pacing.

Theory: each direction numbers its frames from 0 and keeps each until *that* frame is acknowledged (acks are
selective, never cumulative). The counters belong to the session and outlive every WebSocket. TCP below loses
nothing; what is lost is what was under way when a WebSocket broke, or what the agent refused because it was not
ready. The reference resends only its oldest frame, every 100 ms, which recovers from a burst at 10 KiB/s. Here
every frame has its own deadline, and a frame that later ones overtook goes again at once.

What the path cannot take piles up in buffers on the way, where waiting looks like loss. So the window of
unacknowledged bytes grows only while the round trip stays short (as LEDBAT does, RFC 6817), and deadlines double.
"""

from __future__ import annotations

import heapq
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

# A deadline doubles with every retransmission of a frame, up to this.
MAX_BACKOFF = 8.0

# Later frames that must have been acknowledged before one is taken for lost (RFC 9002, section 6.1.1), unless a
# round trip has passed as well.
REORDERING = 3

# Unacknowledged bytes: where a session starts, and how far it may grow. The far end buffers them all.
INITIAL_WINDOW = 64 * 1024
MAX_WINDOW = 1024 * 1024

# Frames that may wait for an earlier one; the peer keeps them until then, so refusing more loses nothing.
MAX_REORDERED = 10_000
MAX_REORDERED_BYTES = 8 * 1024 * 1024


@attrs.define(eq=False)
class RoundTrip:
    """The smoothed round trip and what follows from it, in seconds, as the reference computes them."""

    rtt: float = INITIAL_RTT
    variation: float = 0.0
    timeout: float = INITIAL_RTO
    shortest: float = math.inf

    def sample(self, elapsed: float) -> None:
        """Count one measured round trip."""
        self.variation += (abs(self.rtt - elapsed) - self.variation) / 4
        self.rtt += (elapsed - self.rtt) / 8
        self.timeout = min(MAX_RTO, self.rtt + max(CLOCK_GRANULARITY, 4 * self.variation))
        self.shortest = min(self.shortest, elapsed)


@attrs.define(eq=False)
class _Sent:
    message: bytes
    sent_at: float
    deadline: float
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
    _sent: dict[int, _Sent] = attrs.field(factory=dict[int, _Sent], init=False)

    @property
    def has_room(self) -> bool:
        """Whether another frame may be sent."""
        return self.unacked_bytes < self.window

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._sent))

    def add(self, message: bytes, now: float) -> None:
        """Keep *message*, sent now with the number `next_sequence`."""
        self._sent[self.next_sequence] = _Sent(message, now, now + self._timeout(1))
        self.next_sequence += 1
        self.unacked_bytes += len(message)

    def acknowledge(self, sequence: int, now: float) -> None:
        """Forget the frame *sequence*; a number that is not waiting is ignored."""
        acked = self._sent.pop(sequence, None)
        if acked is None:
            return
        self.unacked_bytes -= len(acked.message)
        if acked.times == 1:
            # Karn's rule: an ack of a resent frame does not say which of the two it answers.
            elapsed = now - acked.sent_at
            self.round_trip.sample(elapsed)
            self._adjust_window(elapsed, len(acked.message))
        for earlier, frame in self._sent.items():
            if earlier < sequence and frame.sent_at <= acked.sent_at:
                frame.overtaken += 1
                if frame.overtaken >= REORDERING or now - frame.sent_at > self.round_trip.rtt:
                    frame.deadline = min(frame.deadline, now)
            if earlier > sequence:
                break

    def _adjust_window(self, elapsed: float, size: int) -> None:
        shortest = self.round_trip.shortest
        if elapsed <= max(2 * shortest, shortest + 0.05):
            self.window = min(MAX_WINDOW, self.window + size)
        else:
            self.window = max(INITIAL_WINDOW, self.window - size // 2)

    def overdue(self, now: float, most: int) -> list[bytes]:
        """Return up to *most* frames whose time is up, oldest first, to be sent again, byte for byte."""
        if most <= 0:
            return []
        due = heapq.nsmallest(most, (number for number, frame in self._sent.items() if frame.deadline <= now))
        for number in due:
            frame = self._sent[number]
            frame.times += 1
            frame.overtaken = 0
            frame.sent_at = now
            frame.deadline = now + self._timeout(frame.times)
            self.retransmitted += 1
        return [self._sent[number].message for number in due]

    def next_deadline(self) -> float:
        """Return when `overdue` next has something; infinite where nothing waits."""
        return min((frame.deadline for frame in self._sent.values()), default=math.inf)

    def resend_all(self, now: float) -> None:
        """Take everything unacknowledged for lost: the connection below is a new one."""
        self.window = INITIAL_WINDOW
        for frame in self._sent.values():
            frame.deadline = now

    def _timeout(self, times: int) -> float:
        return min(MAX_BACKOFF, max(INITIAL_RTO, self.round_trip.timeout) * 2 ** min(times - 1, 10))


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

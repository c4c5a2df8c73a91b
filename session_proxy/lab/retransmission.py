"""What the agent has sent and not seen acknowledged, and when to send it again; no I/O.

The reference's constants and arithmetic (specification, section 8), its lack of Karn's rule included: the oldest
frame is sent again after the timeout, and no other. That makes a loss of many last as long as they are many, and
for ever where AWS's plugin has the oldest but its acknowledgement went missing. So, unlike the reference, the
others are sent again too that waited for its longest timeout, each at doubling intervals: what is late is not
lost. The oldest keeps the reference's pace, for it holds up everything behind it.
"""

from __future__ import annotations

import attrs

TICK = 0.1
INITIAL_RTT = 0.1
INITIAL_TIMEOUT = 0.2
MAX_TIMEOUT = 1.0
CLOCK_GRANULARITY = 0.01
# As far as the intervals between two transmissions of a frame grow that is not the oldest.
MAX_INTERVAL = 10.0


@attrs.define(eq=False)
class RoundTrip:
    """The smoothed round trip time, and the timeout that follows from it."""

    rtt: float = INITIAL_RTT
    variation: float = 0.0
    timeout: float = INITIAL_TIMEOUT

    def sample(self, seconds: float) -> None:
        """Take in one measured round trip."""
        self.variation = 0.75 * self.variation + 0.25 * abs(self.rtt - seconds)
        self.rtt = 0.875 * self.rtt + 0.125 * seconds
        self.timeout = min(MAX_TIMEOUT, self.rtt + max(CLOCK_GRANULARITY, 4 * self.variation))


@attrs.define(eq=False)
class _Sent:
    message: bytes
    start: int
    """How many bytes had been sent before it."""
    sent_at: float
    interval: float = 0.0


@attrs.define(eq=False)
class SentFrames:
    """Frames by sequence number, the oldest first; *head_only* resends one at a time, as AWS's agent does."""

    head_only: bool = False
    round_trip: RoundTrip = attrs.field(factory=RoundTrip, init=False)
    _total: int = attrs.field(default=0, init=False)
    _frames: dict[int, _Sent] = attrs.field(factory=dict[int, _Sent], init=False)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def span(self) -> int:
        """Bytes from the oldest frame on: the client must keep what came of them until it has that one."""
        return self._total - next(iter(self._frames.values())).start if self._frames else 0

    def add(self, sequence: int, message: bytes, now: float) -> None:
        """Keep *message*, sent just now."""
        self._frames[sequence] = _Sent(message, self._total, now)
        self._total += len(message)

    def acknowledge(self, sequence: int, now: float) -> None:
        """Forget a frame; a number that is not here is ignored."""
        sent = self._frames.pop(sequence, None)
        if sent is not None:
            self.round_trip.sample(now - sent.sent_at)

    def overdue(self, now: float) -> list[bytes]:
        """Return the messages to send again, and note that they are."""
        overdue: list[_Sent] = []
        oldest = True
        for sent in self._frames.values():
            limit = self.round_trip.timeout if oldest else max(MAX_TIMEOUT, sent.interval)
            if now - sent.sent_at > limit:
                overdue.append(sent)
            if self.head_only:
                break
            oldest = False
        for sent in overdue:
            sent.sent_at = now
            sent.interval = min(MAX_INTERVAL, 2 * sent.interval or MAX_TIMEOUT)
        return [sent.message for sent in overdue]

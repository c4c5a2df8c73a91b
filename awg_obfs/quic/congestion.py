"""Congestion control that goes by what arrives, not by what is lost.

Reno and CUBIC take every loss for a full queue: at 2 % of random loss they crawl. This controller measures, round trip
by round trip, how many bytes the peer acknowledged per second, and keeps somewhat more than that rate times the
shortest round trip in flight. It is a small relative of BBR (Cardwell et al., 2016):

STARTUP  the window grows by what is acknowledged, until the rate has stopped growing for three rounds
CRUISE   window = rate (the highest of ten rounds) x (shortest round trip x GAIN + SLACK)
DRAIN    every ten seconds without a round trip near the shortest, the window is halved for a moment, so that queues
         of our own making empty and the shortest round trip can be measured anew

Only loss that is too heavy to be chance shrinks the window: it lowers a ceiling, which rises again round by round.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket

NAME = "sproxy-rate"

# More than 1, so that a path that got faster is noticed.
GAIN = 1.5
# Acknowledgements wait a millisecond, timers round to another, and both sides work in batches.
SLACK = 0.008

# A round shorter than this measures how acknowledgements are bunched.
SHORTEST_ROUND = 0.005
RATE_ROUNDS = 10
GROWTH = 1.25
PLATEAU_ROUNDS = 3

# Loss above this is not chance: radio links that lose so much are rare, and full queues lose more.
HEAVY_LOSS = 0.1
# In packets: below this a fraction means nothing.
FEWEST_LOST = 4
BACKOFF = 0.7
RECOVERY = 1.1

ROUND_TRIP_MEMORY = 10.0
# A round trip this near the shortest confirms it.
NEAR = 1.25
DRAIN_SECONDS = 0.2
DRAIN_GAIN = 0.5

SMALLEST_WINDOW = 4  # packets


class _Phase(enum.Enum):
    STARTUP = enum.auto()
    CRUISE = enum.auto()
    DRAIN = enum.auto()


class RateControl(QuicCongestionControl):
    """See above. Windows in bytes, time in seconds."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._packet = max_datagram_size
        self._smallest = SMALLEST_WINDOW * max_datagram_size
        self._phase = _Phase.STARTUP
        self._rates: deque[float] = deque(maxlen=RATE_ROUNDS)
        self._plateau = 0
        self._ceiling = math.inf
        # The round under way.
        self._began = -math.inf
        self._delivered = 0
        self._lost = 0
        self._lost_packets = 0
        self._filled = False
        # The shortest round trip, and the shortest since `_since`.
        self._shortest = math.inf
        self._recent = math.inf
        self._since = -math.inf
        self._drain_until = 0.0

    def on_bytes_acked(self, *, now: float, acked: int, last_sent: float) -> None:
        """*acked* bytes in flight arrived, the last of which left at *last_sent*."""
        if self._phase is _Phase.STARTUP and 2 * self.bytes_in_flight > self.congestion_window:
            self.congestion_window += acked
        self.bytes_in_flight -= acked
        self._delivered += acked
        if last_sent >= self._began and now - self._began >= SHORTEST_ROUND:
            self._end_round(now)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """See `QuicCongestionControl`."""
        sent = packet.sent_time
        self.on_bytes_acked(now=now, acked=packet.sent_bytes, last_sent=now if sent is None else sent)

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        """See `QuicCongestionControl`."""
        self.on_bytes_sent(packet.sent_bytes)

    def on_bytes_sent(self, sent: int) -> None:
        """*sent* bytes left."""
        self.bytes_in_flight += sent
        if self.bytes_in_flight + self._packet > self.congestion_window:
            self._filled = True

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        """See `QuicCongestionControl`."""
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """See `QuicCongestionControl`."""
        del now
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes
            self._lost += packet.sent_bytes
            self._lost_packets += 1

    def on_persistent_congestion(self) -> None:
        """Nothing got through for a while: the path may be another one now."""
        self._phase = _Phase.STARTUP
        self._rates.clear()
        self._plateau = 0
        self._ceiling = math.inf
        self._shortest = self._recent = math.inf
        self.congestion_window = self._smallest

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        """See `QuicCongestionControl`."""
        self._recent = min(self._recent, rtt)
        if rtt <= self._shortest:
            self._shortest = rtt
        if self._phase is _Phase.DRAIN:
            if now >= self._drain_until:
                self._phase = _Phase.CRUISE
                self._renew_shortest(now)
        elif now - self._since >= ROUND_TRIP_MEMORY:
            if self._phase is _Phase.STARTUP or self._recent <= self._shortest * NEAR or not self._filled:
                self._renew_shortest(now)
            else:
                self._phase = _Phase.DRAIN
                self._drain_until = now + max(DRAIN_SECONDS, rtt)
                self._recent = math.inf
                self._set_window()

    def _renew_shortest(self, now: float) -> None:
        if self._recent < math.inf:
            self._shortest = self._recent
        self._recent = math.inf
        self._since = now

    def _end_round(self, now: float) -> None:
        rate = self._delivered / (now - self._began)
        highest = max(self._rates, default=0.0)
        if self._filled or rate > highest:
            self._rates.append(rate)
        total = self._delivered + self._lost
        heavy = self._lost_packets >= FEWEST_LOST and self._lost > HEAVY_LOSS * total
        if heavy:
            self._ceiling = max(self._smallest, BACKOFF * min(self._ceiling, self.congestion_window))
        elif self._ceiling < math.inf:
            self._ceiling *= RECOVERY
        if self._phase is _Phase.STARTUP and self._filled:
            self._plateau = 0 if rate > GROWTH * highest else self._plateau + 1
            if heavy or self._plateau >= PLATEAU_ROUNDS:
                self._phase = _Phase.CRUISE
        if self._phase is not _Phase.STARTUP:
            self._set_window()
        self._began = now
        self._delivered = self._lost = self._lost_packets = 0
        self._filled = False

    def _set_window(self) -> None:
        if not self._rates or self._shortest == math.inf:
            return
        window = max(self._rates) * (self._shortest * GAIN + SLACK)
        if window < self._ceiling / 2:
            self._ceiling = math.inf
        if self._phase is _Phase.DRAIN:
            window *= DRAIN_GAIN
        self.congestion_window = int(max(self._smallest, min(window, self._ceiling)))


def register() -> None:
    """Make the controller known to aioquic, under `NAME`."""
    register_congestion_control(NAME, RateControl)

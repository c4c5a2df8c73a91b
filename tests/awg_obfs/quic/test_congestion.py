"""A controller that goes by what arrives."""

from __future__ import annotations

from collections import deque

import pytest

from awg_obfs.quic.congestion import SMALLEST_WINDOW, RateControl

PACKET = 1350


class Path:
    """A path of *rate* bytes per second and *round_trip* seconds, on which a transfer keeps the window full."""

    def __init__(self, rate: float, round_trip: float, loss: float = 0.0) -> None:
        self.control = RateControl(max_datagram_size=PACKET)
        self.rate, self.round_trip, self.loss = rate, round_trip, loss
        self.now = 0.0
        self.acked = 0
        self._free_at = 0.0
        self._flying: deque[tuple[float, float, bool]] = deque()
        self._count = 0

    def run(self, seconds: float) -> float:
        """Let time pass; return the rate at which bytes arrived."""
        end, before = self.now + seconds, self.acked
        control = self.control
        while self.now < end:
            self.now += 0.001
            while control.bytes_in_flight + PACKET <= control.congestion_window:
                control.on_bytes_sent(PACKET)
                self._free_at = max(self._free_at, self.now) + PACKET / self.rate
                self._count += 1
                lost = bool(self.loss) and self._count % round(1 / self.loss) == 0
                self._flying.append((self.now, self._free_at + self.round_trip, lost))
            acked, sent_at = 0, 0.0
            while self._flying and self._flying[0][1] <= self.now:
                sent_at, _, lost = self._flying.popleft()
                if lost:
                    control.bytes_in_flight -= PACKET
                    control._lost += PACKET
                    control._lost_packets += 1
                else:
                    acked += PACKET
            if acked:
                control.on_rtt_measurement(now=self.now, rtt=self.now - sent_at)
                control.on_bytes_acked(now=self.now, acked=acked, last_sent=sent_at)
                self.acked += acked
        return (self.acked - before) / seconds


@pytest.mark.parametrize(("rate", "round_trip"), [(1e6, 0.01), (1e6, 0.1), (2e7, 0.05)])
def test_it_fills_the_path_and_keeps_its_own_queue_short(rate: float, round_trip: float) -> None:
    path = Path(rate, round_trip)
    path.run(3)
    assert path.run(5) > 0.9 * rate
    assert path.control.congestion_window < 3 * rate * (round_trip + 0.01)


def test_random_loss_hardly_slows_it_down() -> None:
    path = Path(5e6, 0.05, loss=0.02)
    path.run(3)
    assert path.run(5) > 0.8 * 5e6


def test_heavy_loss_shrinks_the_window() -> None:
    path = Path(5e6, 0.05)
    path.run(3)
    before = path.control.congestion_window
    path.loss = 0.25
    path.run(2)
    assert path.control.congestion_window < before / 2


def test_a_path_that_got_faster_is_noticed() -> None:
    path = Path(1e6, 0.05)
    path.run(3)
    path.rate = 4e6
    path.run(5)
    assert path.run(3) > 0.9 * 4e6


def test_after_persistent_congestion_it_starts_anew() -> None:
    path = Path(5e6, 0.05)
    path.run(2)
    path.control.on_persistent_congestion()
    assert path.control.congestion_window == SMALLEST_WINDOW * PACKET
    path.run(3)
    assert path.run(3) > 0.9 * 5e6

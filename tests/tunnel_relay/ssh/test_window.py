from __future__ import annotations

import pytest

from tunnel_relay.errors import SshDisconnectedError
from tunnel_relay.ssh.window import ReceiveWindow, WindowBudget

KIB = 1024


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def window(
    *, size: int = 64 * KIB, limit: int = 256 * KIB, budget: int = 1 << 20, round_trip: float = 0.1
) -> tuple[ReceiveWindow, Clock, WindowBudget]:
    clock, purse = Clock(), WindowBudget(budget)
    return ReceiveWindow(size, limit, purse, clock, lambda: round_trip), clock, purse


def test_more_than_the_window_is_a_breach() -> None:
    opened, _, _ = window()
    opened.arrived(64 * KIB)
    with pytest.raises(SshDisconnectedError, match="window"):
        opened.arrived(1)


def test_nothing_is_granted_for_data_that_nobody_took() -> None:
    opened, _, _ = window()
    opened.arrived(60 * KIB)
    assert opened.consumed(KIB, drained=False) == 0


def test_an_adjustment_is_sent_when_it_is_worth_one() -> None:
    opened, _, _ = window(round_trip=0)
    granted = 0
    for _ in range(64):
        opened.arrived(KIB)
        granted += opened.consumed(KIB, drained=True)
    assert granted == 64 * KIB
    opened.arrived(64 * KIB)


def test_a_window_that_limits_its_reader_grows() -> None:
    """Half a window within one round trip: the reader waits for the window."""
    opened, clock, purse = window()
    opened.consumed(16 * KIB, drained=True)  # sets the first epoch
    clock.now += 0.01
    assert opened.consumed(16 * KIB, drained=True) == (16 + 64) * KIB
    assert opened.size == 128 * KIB
    clock.now += 0.01
    opened.consumed(32 * KIB, drained=True)
    clock.now += 0.01
    opened.consumed(64 * KIB, drained=True)
    assert opened.size == 256 * KIB
    assert purse.left == (1 << 20) - 192 * KIB
    opened.release()
    assert purse.left == 1 << 20


@pytest.mark.parametrize(
    ("round_trip", "elapsed", "drained"), [(0.0, 0.01, True), (0.1, 1.0, True), (0.1, 0.01, False)]
)
def test_it_does_not_grow_where_that_would_not_help(round_trip: float, elapsed: float, drained: bool) -> None:
    """Not on a short path, not for a slow stream, and not for a reader that lags behind."""
    opened, clock, _ = window(round_trip=round_trip)
    for _ in range(10):
        clock.now += elapsed
        opened.consumed(16 * KIB, drained=drained)
    assert opened.size == 64 * KIB


def test_all_windows_share_a_budget() -> None:
    opened, clock, purse = window(budget=10 * KIB)
    for _ in range(10):
        clock.now += 0.01
        opened.consumed(16 * KIB, drained=True)
    assert opened.size == 64 * KIB
    assert purse.left == 10 * KIB

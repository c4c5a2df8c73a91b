from __future__ import annotations

import pytest

from tunnel_relay.ssh.pace import MEMORY, Pace


def test_nothing_is_no_pace() -> None:
    assert Pace(5.0).per_second(7.0) == 0


@pytest.mark.parametrize("interval", [0.001, 0.05])
def test_a_steady_flow_is_measured(interval: float) -> None:
    pace = Pace(0.0)
    now = 0.0
    while now < 5 * MEMORY:
        now += interval
        pace.count(round(600_000 * interval), now)

    assert pace.per_second(now) == pytest.approx(600_000, rel=0.05)


def test_what_has_ended_is_forgotten() -> None:
    pace = Pace(0.0)
    pace.count(1_000_000, 0.0)

    assert pace.per_second(10 * MEMORY) < 100

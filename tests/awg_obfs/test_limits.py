from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.limits import TokenBucket


def test_a_burst_goes_through_and_then_the_rate_counts() -> None:
    bucket = TokenBucket(rate=10.0, burst=3.0)

    assert [bucket.take(100.0) for _ in range(4)] == [0.0, 0.0, 0.0, None]
    assert bucket.take(100.05) is None
    assert bucket.take(100.11) == 0.0


def test_who_is_patient_is_told_how_long_to_wait() -> None:
    bucket = TokenBucket(rate=10.0, burst=1.0)
    bucket.take(0.0)

    waits = [bucket.take(0.0, patience=0.25) for _ in range(3)]

    assert waits == [pytest.approx(0.1), pytest.approx(0.2), None]
    # Who was refused has taken nobody's turn.
    assert bucket.take(0.1, patience=1.0) == pytest.approx(0.2)


def test_an_idle_bucket_does_not_fill_beyond_its_burst() -> None:
    bucket = TokenBucket(rate=1000.0, burst=2.0)

    assert [bucket.take(1e6) for _ in range(3)] == [0.0, 0.0, None]


@given(st.lists(st.floats(0.0, 0.5), max_size=200), st.floats(1.0, 50.0), st.floats(1.0, 20.0))
def test_no_more_goes_through_than_burst_and_rate_allow(
    pauses: list[float], rate: float, burst: float
) -> None:
    bucket, now, passed = TokenBucket(rate, burst), 0.0, 0
    for pause in pauses:
        now += pause
        passed += bucket.take(now) is not None

        assert passed <= burst + rate * now + 1e-6

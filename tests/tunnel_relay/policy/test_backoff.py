"""How long to rest before trying again, and when to say that it is down."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.policy.backoff import (
    PROVEN,
    REST_ON_DEMAND,
    SLOW_REST_ON_DEMAND,
    Backoff,
    BackoffSettings,
)

NOMINAL = 60.0 / 1.3


def middling() -> float:
    """Return what makes no jitter."""
    return 0.5


def test_the_first_retry_comes_at_once_and_each_rest_is_twice_as_long() -> None:
    backoff = Backoff(middling)
    rests = [backoff.failed("refused", 0.0) for _ in range(9)]
    assert rests == [0, 2, 4, 8, 16, 32, NOMINAL, NOMINAL, NOMINAL]
    assert (backoff.failures, backoff.down) == (9, False)


def test_after_ten_attempts_it_is_down_and_a_slow_probe_goes_on() -> None:
    backoff = Backoff(middling)
    rests = [backoff.failed("refused", 5.0) for _ in range(2000)]
    assert set(rests[9:]) == {120.0}
    assert backoff.down
    assert (backoff.reason, backoff.not_before) == ("refused", 125.0)


@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.booleans(), st.floats(0, 1000)), min_size=1, max_size=30),
)
def test_no_rest_is_longer_than_a_minute_nor_off_by_more_than_the_jitter(
    seed: int, failures: list[tuple[bool, float]]
) -> None:
    backoff = Backoff(random.Random(seed).random, BackoffSettings(attempts=1000))
    for number, (slow, retry_after) in enumerate(failures):
        rest = backoff.failed("refused", 0.0, slow=slow, retry_after=retry_after)
        nominal = NOMINAL if slow else min(NOMINAL, 2.0**number if number else 0.0)
        assert 0.7 * nominal - 1e-9 <= rest <= 60.0 + 1e-9
        assert rest <= max(1.3 * nominal, retry_after) + 1e-9
        assert rest >= min(retry_after, 60.0)


def test_rests_differ_up_to_the_bound() -> None:
    """Those who lost the same server do not come back in step, however long it takes."""
    rng = random.Random(1).random
    rests: set[float] = set()
    for _ in range(100):
        backoff = Backoff(rng)
        rests.add([backoff.failed("refused", 0.0) for _ in range(9)][-1])
    assert len(rests) == 100
    assert max(rests) - min(rests) > 20


def test_slow_probes_do_not_come_in_step_either() -> None:
    backoff = Backoff(random.Random(1).random)
    probes = [backoff.failed("refused", 0.0) for _ in range(1000)][9:]
    assert 84.0 <= min(probes) < 90.0
    assert 150.0 < max(probes) <= 156.0


def test_a_link_that_was_proven_is_replaced_at_once_and_forgets_what_was() -> None:
    backoff = Backoff(middling)
    for _ in range(10):
        backoff.failed("refused", 0.0)
    backoff.succeeded()
    assert (backoff.down, backoff.reason) == (False, "")
    assert backoff.lost("reset", 100.0, lived=PROVEN) == 0.0
    assert (backoff.failures, backoff.down, backoff.reason, backoff.not_before) == (0, False, "reset", 100.0)
    assert [backoff.failed("refused", 100.0) for _ in range(3)] == [2, 4, 8]


def test_links_that_end_soon_count_as_failures() -> None:
    """A server that takes everybody and drops them is not asked without pause."""
    backoff = Backoff(middling)
    rests: list[float] = []
    for _ in range(10):
        backoff.succeeded()
        rests.append(backoff.lost("reset", 0.0, lived=PROVEN - 1))
    assert rests[:3] == [0, 2, 4]
    assert backoff.down


def test_what_is_proven_owes_nothing() -> None:
    backoff = Backoff(middling)
    backoff.failed("refused", 0.0)
    backoff.failed("refused", 0.0)
    backoff.proven()
    assert (backoff.failures, backoff.reason, backoff.not_before) == (0, "", -math.inf)
    assert backoff.failed("refused", 0.0) == 0.0


def test_errors_that_no_retry_heals_rest_long_from_the_first() -> None:
    assert Backoff(middling).failed("the token is expired", 0.0, slow=True) == NOMINAL


@pytest.mark.parametrize("said", [-1.0, 0.0, math.nan])
def test_a_word_on_when_to_retry_that_makes_no_sense_is_none(said: float) -> None:
    assert Backoff(middling).failed("busy", 0.0, retry_after=said) == 0.0


def test_demand_shortens_a_rest_but_not_to_nothing() -> None:
    backoff = Backoff(middling)
    for _ in range(10):
        backoff.failed("refused", 50.0)
    backoff.demand(51.0)
    assert backoff.not_before == 50.0 + REST_ON_DEMAND
    backoff.demand(1000.0)
    assert backoff.not_before == 50.0 + REST_ON_DEMAND


@pytest.mark.parametrize(("slow", "retry_after", "rest"), [(True, 0, SLOW_REST_ON_DEMAND), (False, 40, 40)])
def test_demand_asks_nobody_who_is_known_to_refuse(slow: bool, retry_after: float, rest: float) -> None:
    backoff = Backoff(middling)
    for _ in range(9):
        backoff.failed("not you", 0.0, slow=slow, retry_after=retry_after)
    backoff.demand(1.0)
    assert backoff.not_before == rest


def test_demand_after_the_rest_changes_nothing() -> None:
    backoff = Backoff(middling)
    backoff.demand(7.0)
    assert backoff.not_before == -math.inf


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="jitter"):
        BackoffSettings(jitter=1.0)
    with pytest.raises(ValueError, match="attempts"):
        BackoffSettings(attempts=0)

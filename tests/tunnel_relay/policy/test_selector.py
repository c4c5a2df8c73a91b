"""Which relay server is used when, and when another."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.policy.backoff import PROVEN
from tunnel_relay.policy.selector import Attempt, Endpoint, Rest, Selector, SelectorSettings

FIRST = Endpoint(url="wss://first.example", priority=1)
SECOND = Endpoint(url="wss://second.example", priority=2)
THIRD = Endpoint(url="wss://third.example", priority=3)


def middling() -> float:
    """Return what makes no jitter."""
    return 0.5


def selector(*endpoints: Endpoint, **settings: float) -> Selector:
    """Return one without jitter."""
    return Selector(endpoints or (FIRST, SECOND), middling, SelectorSettings(**settings))  # type: ignore[arg-type]


def failed_over(now: float = 0.0, **settings: float) -> Selector:
    """Return one that uses the second because the first did not answer."""
    made = selector(**settings)
    made.failed(FIRST, "no answer", now)
    made.connected(SECOND, now)
    return made


def test_the_best_is_tried_first_and_the_next_at_once() -> None:
    made = selector(SECOND, FIRST, THIRD)
    tried: list[Endpoint] = []
    for _ in range(6):
        step = made.next_step(0.0)
        assert isinstance(step, Attempt)
        tried.append(step.endpoint)
        made.failed(step.endpoint, "no answer", 0.0)
    # Each comes at once a second time, but not before all the others had their turn.
    assert tried == [FIRST, SECOND, THIRD] * 2
    assert made.next_step(0.0) == Rest(2.0)
    assert made.next_timer(0.0) == 2.0
    assert made.next_step(2.0) == Attempt(FIRST)


def test_a_single_endpoint_is_tried_at_once_again_and_then_rests() -> None:
    made = selector(FIRST)
    assert made.failed(FIRST, "no answer", 0.0) == 0.0
    assert made.next_step(0.0) == Attempt(FIRST)
    assert made.failed(FIRST, "no answer", 0.0) == 2.0
    assert made.next_step(0.0) == Rest(2.0)


def test_a_proven_link_that_is_lost_is_sought_where_it_was() -> None:
    made = selector()
    made.connected(FIRST, 0.0)
    assert made.lost(FIRST, "reset", PROVEN) == 0.0
    assert made.next_step(PROVEN) == Attempt(FIRST)
    made.failed(FIRST, "no answer", PROVEN)
    assert made.next_step(PROVEN) == Attempt(SECOND)


def test_a_link_that_is_lost_before_it_was_proven_is_sought_elsewhere_first() -> None:
    made = selector()
    made.connected(FIRST, 0.0)
    assert made.lost(FIRST, "reset", PROVEN - 1) == 0.0
    assert made.next_step(PROVEN - 1) == Attempt(SECOND)


def test_rest_is_over_when_the_first_of_them_may_be_tried() -> None:
    made = selector(FIRST, SECOND, THIRD)
    for endpoint, failures in ((FIRST, 4), (SECOND, 3), (THIRD, 5)):
        for _ in range(failures):
            made.failed(endpoint, "no answer", 0.0)
    assert made.next_step(0.0) == Rest(4.0)
    assert made.next_step(4.0) == Attempt(SECOND)


def test_equals_are_chosen_by_weight() -> None:
    light, heavy = Endpoint(url="wss://light", weight=1), Endpoint(url="wss://heavy", weight=3)
    rng = random.Random(1).random
    chosen: Counter[str] = Counter()
    for _ in range(4000):
        step = Selector((light, heavy, SECOND), rng).next_step(0.0)
        assert isinstance(step, Attempt)
        chosen[step.endpoint.url] += 1
    assert chosen.keys() == {light.url, heavy.url}
    assert 850 < chosen[light.url] < 1150


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1 - 2**-53])
def test_among_equals_what_worked_is_taken_again(drawn: float) -> None:
    equals = [Endpoint(url=f"wss://{number}") for number in range(3)]
    made = Selector(equals, lambda: drawn, works=equals[1].url)
    assert made.next_step(0.0) == Attempt(equals[1])
    made.failed(equals[1], "no answer", 0.0)
    step = made.next_step(0.0)
    assert isinstance(step, Attempt)
    made.connected(step.endpoint, 0.0)
    assert made.works == step.endpoint.url
    made.lost(step.endpoint, "reset", 100.0)
    assert made.next_step(100.0) == step


def test_what_worked_does_not_come_before_what_is_better() -> None:
    made = Selector((FIRST, SECOND), middling, works=SECOND.url)
    assert made.next_step(0.0) == Attempt(FIRST)


def test_people_are_told_what_is_used_and_why() -> None:
    made = selector()
    made.failed(FIRST, "no answer", 5.0)
    made.connected(SECOND, 7.0)
    state = made.state()
    assert (state.primary, state.active, state.failed_over_at) == (FIRST, SECOND, 7.0)
    assert state.reason == "wss://first.example: no answer"
    made.lost(SECOND, "reset", 50.0)
    state = made.state()
    assert (state.active, state.failed_over_at, state.down) == (None, 7.0, False)
    assert state.reason == "wss://first.example: no answer; wss://second.example: reset"
    made.connected(FIRST, 60.0)
    state = made.state()
    assert (state.active, state.failed_over_at, state.reason) == (FIRST, None, "")


def test_it_is_down_when_all_are() -> None:
    made = selector()
    for _ in range(10):
        made.failed(FIRST, "no answer", 0.0)
    assert not made.state().down
    for _ in range(10):
        made.failed(SECOND, "no answer", 0.0)
    assert made.state().down
    made.connected(SECOND, 0.0)
    assert not made.state().down


def test_the_primary_is_the_heaviest_of_the_best() -> None:
    heavy = Endpoint(url="wss://heavy", weight=5)
    assert selector(FIRST, heavy, SECOND).state().primary == heavy


def test_better_ones_are_looked_at_and_gone_back_to_when_they_were_well_for_a_while() -> None:
    made = failed_over()
    assert made.to_probe(29.0) == []
    assert made.next_timer(0.0) == 30.0
    assert made.to_probe(30.0) == [FIRST]
    assert made.to_probe(30.0) == []
    made.probed(FIRST, 31.0, healthy=True)
    assert made.better(90.0) is None
    assert made.to_probe(60.0) == made.to_probe(90.0) == [FIRST]
    assert made.next_timer(90.0) == 91.0
    made.probed(FIRST, 90.5, healthy=True)
    assert made.better(91.0) == FIRST
    made.connected(FIRST, 92.0)
    assert made.state().active == FIRST
    # The link that is not used any more is closed without being missed.
    made.left(SECOND, 92.0)
    assert made.state().active == FIRST
    assert made.next_timer(92.0) is None
    assert made.to_probe(1000.0) == []


def test_of_several_better_ones_each_has_its_time() -> None:
    made = selector(FIRST, SECOND, THIRD)
    made.connected(THIRD, 0.0)
    made.to_probe(30.0)
    made.probed(SECOND, 31.0, healthy=True)
    made.to_probe(60.0)
    assert made.next_timer(89.0) == 90.0
    made.to_probe(90.0)
    assert made.next_timer(90.0) == 91.0
    assert made.better(91.0) == SECOND
    made.connected(SECOND, 91.0)
    assert made.to_probe(121.0) == [FIRST]


def test_one_bad_finding_begins_the_while_anew() -> None:
    made = failed_over()
    made.probed(FIRST, 30.0, healthy=True)
    made.probed(FIRST, 60.0, healthy=False)
    made.probed(FIRST, 70.0, healthy=True)
    assert made.better(129.0) is None
    assert made.better(130.0) == FIRST


def test_a_better_one_that_is_well_but_not_to_be_reached_is_tried_again_later() -> None:
    made = failed_over()
    made.probed(FIRST, 30.0, healthy=True)
    assert made.better(90.0) == FIRST
    made.failed(FIRST, "the upgrade is refused", 90.0)
    made.probed(FIRST, 91.0, healthy=True)
    assert made.state().active == SECOND
    assert made.better(150.0) is None
    assert made.better(151.0) == FIRST


def test_a_rest_that_was_asked_for_holds_up_going_back() -> None:
    made = failed_over(failback_delay=0.0)
    made.failed(FIRST, "too many", 0.0, retry_after=50.0)
    made.probed(FIRST, 10.0, healthy=True)
    assert made.better(49.0) is None
    assert made.better(50.0) == FIRST


def test_one_that_is_well_again_is_tried_first_when_the_other_is_lost() -> None:
    made = failed_over()
    made.probed(FIRST, 30.0, healthy=True)
    made.lost(SECOND, "reset", 40.0)
    assert made.next_step(40.0) == Attempt(FIRST)


def test_one_that_failed_is_not_tried_first_when_the_other_is_lost() -> None:
    made = failed_over()
    made.lost(SECOND, "reset", 40.0)
    assert made.next_step(40.0) == Attempt(SECOND)


def test_without_failback_a_better_one_is_not_even_looked_at() -> None:
    made = failed_over(failback=False)
    assert made.to_probe(1000.0) == []
    made.probed(FIRST, 10.0, healthy=True)
    assert made.better(1000.0) is None
    assert made.next_timer(1000.0) is None


def test_clients_do_not_look_in_step() -> None:
    rng, times = random.Random(1).random, set[float | None]()
    for _ in range(20):
        made = Selector((FIRST, SECOND), rng)
        made.connected(SECOND, 0.0)
        times.add(made.next_timer(0.0))
    assert len(times) == 20
    assert all(time is not None and 21.0 <= time <= 39.0 for time in times)


def test_going_back_and_losing_it_at_once_leads_to_the_other_one() -> None:
    made = failed_over()
    made.probed(FIRST, 30.0, healthy=True)
    made.connected(FIRST, 90.0)
    made.lost(FIRST, "reset", 91.0)
    assert made.next_step(91.0) == Attempt(SECOND)


def test_a_link_that_was_proven_when_it_was_left_owes_nothing() -> None:
    made = selector()
    for _ in range(4):
        made.failed(SECOND, "no answer", 0.0)
    made.connected(SECOND, 0.0)
    made.connected(FIRST, PROVEN)
    assert made.failed(SECOND, "no answer", PROVEN) == 0.0


def test_a_link_that_was_left_soon_has_proven_nothing() -> None:
    made = selector()
    for _ in range(4):
        made.failed(SECOND, "no answer", 100.0)
    made.connected(SECOND, 100.0)
    made.connected(FIRST, 99.0 + PROVEN)
    assert made.failed(SECOND, "no answer", 110.0) == 16.0


def test_who_leaves_may_come_back_to_where_it_was() -> None:
    made = selector()
    made.failed(FIRST, "no answer", 0.0)
    made.connected(FIRST, 1.0)
    made.left(FIRST, 1.0)
    assert made.state().reason == ""
    assert made.next_step(1.0) == Attempt(FIRST)


@pytest.mark.parametrize(("lived", "rest"), [(PROVEN, 0.0), (PROVEN - 1, 16.0)])
def test_what_was_proven_before_a_goodbye_is_not_forgotten(lived: float, rest: float) -> None:
    made = selector(FIRST)
    for _ in range(4):
        made.failed(FIRST, "no answer", 0.0)
    made.connected(FIRST, 0.0)
    made.left(FIRST, lived)
    assert made.failed(FIRST, "no answer", lived) == rest


def test_the_end_of_an_old_link_says_nothing_of_the_one_in_use() -> None:
    made = selector()
    made.connected(SECOND, 0.0)
    made.connected(FIRST, 5.0)
    made.lost(SECOND, "reset", 6.0)
    assert made.state().active == FIRST
    made.left(FIRST, 6.0)
    assert made.state().active is None
    assert made.next_step(6.0) == Attempt(FIRST)


def test_demand_shortens_rests() -> None:
    made = selector(FIRST)
    for _ in range(8):
        made.failed(FIRST, "no answer", 0.0)
    made.demand(1.0)
    assert made.next_step(1.0) == Rest(5.0)


def test_who_begins_anew_rests_no_longer() -> None:
    made = selector(FIRST)
    for _ in range(8):
        made.failed(FIRST, "no", 0.0, slow=True)
    made.begin_anew()
    assert made.next_step(1.0) == Attempt(FIRST)


@pytest.mark.parametrize("endpoints", [(), (FIRST, Endpoint(url=FIRST.url, priority=7))])
def test_endpoints_that_cannot_be_told_apart_are_refused(endpoints: tuple[Endpoint, ...]) -> None:
    with pytest.raises(ValueError, match="URL of its own"):
        Selector(endpoints, middling)


@given(
    seed=st.integers(0, 2**32),
    priorities=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    weather=st.lists(st.tuples(st.floats(1, 200), st.sets(st.integers(0, 3))), max_size=8),
)
def test_in_any_weather_it_ends_up_with_the_best(
    seed: int, priorities: list[int], weather: list[tuple[float, set[int]]]
) -> None:
    """*weather* says how long which endpoints do not work; then all do."""
    endpoints = [Endpoint(url=f"wss://{number}", priority=value) for number, value in enumerate(priorities)]
    made, now, link = Selector(endpoints, random.Random(seed).random), 0.0, None
    ends = [(pause, {endpoints[index] for index in bad if index < len(endpoints)}) for pause, bad in weather]
    for pause, bad in [*ends, (600.0, set[Endpoint]())]:
        until, steps = now + pause, 0
        if link in bad:
            made.lost(link, "reset", now)
            link = None
        while now < until:
            steps += 1
            assert steps < 1000, "it does not rest"
            if link is None:
                step = made.next_step(now)
                candidate = step.endpoint if isinstance(step, Attempt) else None
            else:
                for each in made.to_probe(now):
                    made.probed(each, now, healthy=each not in bad)
                candidate = made.better(now)
                assert candidate is None or candidate.priority < link.priority
            if candidate is not None and candidate in bad:
                made.failed(candidate, "no answer", now)
            elif candidate is not None:
                made.connected(candidate, now)
                link = candidate
            else:
                timer = made.next_timer(now)
                assert timer is None or timer > now
                now = until if timer is None else timer
    assert link is not None
    assert link.priority == min(priorities)
    assert made.state().failed_over_at is None

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.policy.race import STAGGER, START_PATIENCE, Memory, Runner, Standing, Use, Wait, next_move

READY, COMING, DOWN = Standing.READY, Standing.COMING, Standing.DOWN


def test_the_first_that_is_ready_is_used_at_once() -> None:
    assert next_move([Runner("dev", READY), Runner("edge", READY)], 10, 10) == Use("dev")
    assert next_move([Runner("dev", DOWN), Runner("edge", READY)], 10, 10) == Use("edge")


def test_one_that_is_coming_is_a_moment_ahead() -> None:
    race = [Runner("dev", COMING), Runner("edge", READY)]

    assert next_move(race, 10, 10) == Wait(10 + STAGGER)
    assert next_move(race, 10, 10 + STAGGER) == Use("edge")


def test_each_one_that_is_coming_is_a_moment_ahead_of_the_next() -> None:
    race = [Runner("a", COMING), Runner("b", COMING), Runner("c", READY)]

    assert next_move(race, 10, 10.1) == Wait(10 + 2 * STAGGER)
    assert next_move([race[0], Runner("b", READY), race[2]], 10, 10.3) == Use("b")
    assert next_move([race[0], Runner("b", READY), race[2]], 10, 10.2) == Wait(10 + STAGGER)


def test_an_order_of_three_is_through_its_first_two_in_less_than_a_second() -> None:
    assert next_move([Runner("a", COMING), Runner("b", COMING), Runner("c", READY)], 0, 0.9) == Use("c")


def test_one_that_comes_up_for_the_first_time_has_its_time_from_its_start_on() -> None:
    race = [Runner("dev", COMING, since=8, fresh=True), Runner("edge", READY)]

    assert next_move(race, 10, 10) == Wait(8 + START_PATIENCE)
    assert next_move(race, 10 + START_PATIENCE, 10 + START_PATIENCE) == Use("edge")


def test_who_has_little_time_waits_no_longer_than_that() -> None:
    race = [Runner("dev", COMING, since=10, fresh=True), Runner("edge", READY)]

    assert next_move(race, 10, 10, latest=11) == Wait(11)
    assert next_move(race, 10, 11, latest=11) == Use("edge")


def test_nobody_waits_for_one_that_rests() -> None:
    assert next_move([Runner("dev", COMING, rests=True), Runner("edge", READY)], 10, 10) == Use("edge")
    assert next_move([Runner("dev", READY, rests=True), Runner("edge", READY)], 10, 10) == Use("edge")


def test_one_that_rests_is_better_than_none() -> None:
    assert next_move([Runner("dev", READY, rests=True), Runner("edge", DOWN)], 10, 10) == Use("dev")
    race = [Runner("dev", READY, rests=True), Runner("edge", COMING)]
    assert next_move(race, 10, 10) == Wait(10 + STAGGER)
    assert next_move(race, 10, 10 + STAGGER) == Use("dev")


def test_where_nothing_is_ready_there_is_only_waiting() -> None:
    assert next_move([Runner("dev", COMING), Runner("edge", DOWN)], 10, 99) == Wait(math.inf)


def test_where_all_is_down_there_is_not_even_that() -> None:
    assert next_move([Runner("dev", DOWN)], 10, 10) is None
    assert next_move([], 10, 10) is None


RUNNERS = st.lists(
    st.builds(Runner, st.sampled_from("abcd"), st.sampled_from(Standing), st.just(0.0), st.booleans()),
    max_size=4,
)


@given(RUNNERS, st.floats(0, 10))
def test_whoever_waits_long_enough_gets_what_is_ready(race: list[Runner], now: float) -> None:
    move = next_move(race, 0, now)
    ready = [runner.name for runner in race if runner.standing is READY]

    if isinstance(move, Wait):
        assert move.until > now
        again = next_move(race, 0, move.until)
        assert isinstance(again, Use) if ready else again == Wait(math.inf)
    elif isinstance(move, Use):
        assert move.name in ready
    else:
        assert all(runner.standing is DOWN for runner in race)


def test_nothing_rests_that_has_not_failed() -> None:
    memory = Memory(60)
    memory.observe("dev", READY, 0)
    memory.observe("dev", COMING, 1)

    assert not memory.rests("dev")
    assert memory.back_at("dev") == math.inf


def test_one_that_was_down_rests_until_it_was_ready_for_long_enough() -> None:
    memory = Memory(60)
    memory.observe("dev", DOWN, 0)
    assert memory.rests("dev")
    assert memory.back_at("dev") == math.inf

    memory.observe("dev", READY, 100)
    memory.observe("dev", READY, 130)
    assert memory.rests("dev")
    assert memory.back_at("dev") == 160

    memory.observe("dev", READY, 160)
    assert not memory.rests("dev")


@pytest.mark.parametrize("standing", [COMING, DOWN])
def test_one_that_comes_and_goes_rests_on(standing: Standing) -> None:
    memory = Memory(60)
    memory.observe("dev", DOWN, 0)
    memory.observe("dev", READY, 100)
    memory.observe("dev", standing, 150)
    memory.observe("dev", READY, 155)
    memory.observe("dev", READY, 170)

    assert memory.rests("dev")
    assert memory.back_at("dev") == 215


def test_without_a_delay_it_is_gone_back_to_at_once() -> None:
    memory = Memory(0)
    memory.observe("dev", DOWN, 0)
    memory.observe("dev", READY, 1)

    assert not memory.rests("dev")


def test_one_that_was_not_ready_in_time_is_used_again_when_it_is() -> None:
    memory = Memory(60)
    memory.observe("dev", READY, 0)
    memory.observe("dev", COMING, 1)
    memory.passed("dev")
    assert memory.rests("dev")

    memory.observe("dev", READY, 2)
    assert not memory.rests("dev")


def test_one_is_fresh_until_it_was_ready_or_down_or_given_up() -> None:
    for standing in (READY, DOWN):
        memory = Memory(60)
        memory.observe("dev", COMING, 0)
        assert memory.is_fresh("dev")
        memory.observe("dev", standing, 1)
        memory.observe("dev", COMING, 2)
        assert not memory.is_fresh("dev")

    memory = Memory(60)
    memory.passed("dev")
    assert not memory.is_fresh("dev")


def test_another_one_of_the_same_name_begins_anew() -> None:
    memory = Memory(60)
    memory.observe("dev", DOWN, 0)
    memory.forget("dev")

    assert not memory.rests("dev")
    assert memory.is_fresh("dev")

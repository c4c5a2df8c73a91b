"""When a destination is tried no more, and when again."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tunnel_relay.policy import breaker as breaker_module
from tunnel_relay.policy.breaker import Breakers, BreakerSettings, BreakerState, Held, Pass

SSH = "nas:22"


def admitted(breakers: Breakers, now: float, user: str = "alice", destination: str = SSH) -> Pass:
    """Return the pass of one who is let through."""
    answer = breakers.admit(user, destination, now)
    assert isinstance(answer, Pass)
    return answer


def opened(now: float = 0.0, settings: BreakerSettings | None = None) -> Breakers:
    """Return breakers of which one opened at *now*."""
    breakers = Breakers(settings or BreakerSettings())
    for _ in range(5):
        breakers.failed(admitted(breakers, now), now)
    return breakers


def test_the_fifth_failure_in_a_row_opens_it_for_a_minute() -> None:
    breakers = Breakers()
    outcomes = [breakers.failed(admitted(breakers, 10.0), 10.0) for _ in range(5)]
    assert outcomes == [False] * 4 + [True]
    assert breakers.admit("alice", SSH, 10.0) == Held(60.0)
    assert breakers.admit("alice", SSH, 69.0) == Held(1.0)
    assert breakers.state("alice", SSH, 69.0) is BreakerState.OPEN
    assert breakers.state("alice", SSH, 70.0) is BreakerState.HALF_OPEN
    assert isinstance(breakers.admit("alice", SSH, 70.0), Pass)


def test_a_success_begins_the_count_anew() -> None:
    breakers = Breakers()
    for _ in range(10):
        for _ in range(4):
            assert not breakers.failed(admitted(breakers, 0.0), 0.0)
        breakers.succeeded(admitted(breakers, 0.0))
    assert breakers.state("alice", SSH, 0.0) is BreakerState.CLOSED


def test_neither_another_user_nor_another_destination_is_held() -> None:
    breakers = opened()
    admitted(breakers, 0.0, user="bob")
    admitted(breakers, 0.0, destination="other:22")
    assert isinstance(breakers.admit("alice", SSH, 0.0), Held)


def test_half_open_a_few_are_let_through_and_the_first_success_closes_it() -> None:
    breakers = opened()
    trials = [admitted(breakers, 60.0) for _ in range(3)]
    assert breakers.admit("alice", SSH, 61.0) == Held(29.0)
    breakers.succeeded(trials[1])
    assert breakers.state("alice", SSH, 61.0) is BreakerState.CLOSED
    assert len(breakers) == 0
    # The others were let through by a breaker that is no more.
    assert not breakers.failed(trials[0], 61.0)
    breakers.succeeded(trials[2])
    breakers.abandoned(trials[2])
    assert len(breakers) == 0


def test_half_open_the_first_failure_opens_it_for_another_minute() -> None:
    breakers = opened()
    first, second = admitted(breakers, 60.0), admitted(breakers, 60.0)
    assert breakers.failed(first, 65.0)
    assert breakers.admit("alice", SSH, 65.0) == Held(60.0)
    # It was let through before that; what it finds now was so before.
    breakers.succeeded(second)
    assert not breakers.failed(second, 66.0)
    assert breakers.admit("alice", SSH, 66.0) == Held(59.0)


def test_what_was_begun_before_it_opened_says_nothing() -> None:
    breakers = Breakers()
    early = [admitted(breakers, 0.0) for _ in range(8)]
    for each in early[:5]:
        breakers.failed(each, 1.0)
    assert not breakers.failed(early[5], 50.0)
    breakers.succeeded(early[6])
    assert breakers.admit("alice", SSH, 50.0) == Held(11.0)
    assert not breakers.failed(early[7], 61.0)
    assert breakers.state("alice", SSH, 61.0) is BreakerState.HALF_OPEN


def test_a_trial_that_is_given_up_makes_room_for_another() -> None:
    breakers = opened()
    trials = [admitted(breakers, 60.0) for _ in range(3)]
    breakers.abandoned(trials[0])
    admitted(breakers, 60.0)
    assert isinstance(breakers.admit("alice", SSH, 60.0), Held)


def test_a_trial_that_is_never_heard_of_does_not_hold_others_up_for_ever() -> None:
    breakers = opened(settings=BreakerSettings(trials=1))
    lost = admitted(breakers, 60.0)
    assert breakers.admit("alice", SSH, 89.0) == Held(1.0)
    later = admitted(breakers, 90.0)
    assert not breakers.failed(lost, 91.0)
    breakers.succeeded(later)
    assert breakers.state("alice", SSH, 91.0) is BreakerState.CLOSED


def test_who_is_held_half_open_is_told_of_the_trial_that_is_over_first() -> None:
    breakers = opened()
    for now in (60.0, 65.0, 70.0):
        admitted(breakers, now)
    assert breakers.admit("alice", SSH, 75.0) == Held(15.0)
    admitted(breakers, 90.0)
    assert breakers.admit("alice", SSH, 90.0) == Held(5.0)


def test_giving_up_says_nothing_while_it_is_closed() -> None:
    breakers = Breakers()
    breakers.abandoned(admitted(breakers, 0.0))
    for _ in range(4):
        breakers.failed(admitted(breakers, 0.0), 0.0)
    breakers.abandoned(admitted(breakers, 0.0))
    assert breakers.failed(admitted(breakers, 0.0), 0.0)


def test_states_are_numbers_and_the_worst_of_them_is_the_metric() -> None:
    breakers = opened()
    assert [int(state) for state in BreakerState] == [0, 1, 2]
    assert breakers.worst(0.0) is BreakerState.OPEN
    assert breakers.worst(60.0) is BreakerState.HALF_OPEN
    for _ in range(4):
        assert not breakers.failed(admitted(breakers, 30.0, user="bob"), 30.0)
    assert list(breakers.states(60.0)) == [("alice", SSH, BreakerState.HALF_OPEN)]
    assert breakers.failed(admitted(breakers, 30.0, user="bob"), 30.0)
    assert breakers.worst(60.0) is BreakerState.OPEN
    assert Breakers().worst(0.0) is BreakerState.CLOSED


def test_only_failures_take_memory() -> None:
    breakers = Breakers()
    for number in range(100):
        pass_ = admitted(breakers, 0.0, destination=str(number))
        if number % 2:
            breakers.succeeded(pass_)
    assert len(breakers) == 0
    failing = [admitted(breakers, 0.0, destination=str(number)) for number in range(2)]
    for pass_ in failing:
        breakers.failed(pass_, 0.0)
    breakers.succeeded(failing[0])
    assert len(breakers) == 1
    breakers.succeeded(failing[1])
    assert not breakers._users


def test_memory_is_bounded_for_each_user_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker_module, "MOST_DESTINATIONS", 3)
    monkeypatch.setattr(breaker_module, "MOST_USERS", 4)
    breakers = opened()
    for number in range(50):
        breakers.failed(admitted(breakers, 0.0, destination=f"host {number}"), 0.0)
        # Whoever is asked for is remembered.
        assert isinstance(breakers.admit("alice", SSH, 0.0), Held)
    assert len(breakers) == 3
    for number in range(50):
        breakers.failed(admitted(breakers, 0.0, user=f"user {number}"), 0.0)
        assert isinstance(breakers.admit("alice", SSH, 0.0), Held)
    assert len(breakers) == 3 + 3


@pytest.mark.parametrize("name", ["failures", "recovery", "trials", "trial"])
def test_settings_that_cannot_work_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        BreakerSettings(**{name: 0})


class AnyOutcomes(RuleBasedStateMachine):
    """Whatever comes of the attempts, in whatever order."""

    passes = Bundle("passes")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breakers = Breakers(BreakerSettings(failures=2, trials=2))
        self.out: set[Pass] = set()
        self.opened_at: float | None = None

    @rule(pause=st.sampled_from([0.0, 1.0, 29.0, 30.0, 60.0]))
    def wait(self, pause: float) -> None:
        self.now += pause

    @rule(target=passes)
    def ask(self) -> object:
        answer = self.breakers.admit("alice", SSH, self.now)
        if isinstance(answer, Held):
            assert 0.0 < answer.retry_in <= 60.0
            assert self.breakers.state("alice", SSH, self.now) is not BreakerState.CLOSED
            return multiple()  # pyright: ignore[reportUnknownVariableType]
        # Nobody is let through within a minute after it opened.
        assert self.opened_at is None or self.now >= self.opened_at + 60.0
        return answer

    @rule(pass_=consumes(passes))
    def fail(self, pass_: Pass) -> None:
        if self.breakers.failed(pass_, self.now):
            self.opened_at = self.now
            assert self.breakers.state("alice", SSH, self.now) is BreakerState.OPEN

    @rule(pass_=consumes(passes))
    def succeed(self, pass_: Pass) -> None:
        self.breakers.succeeded(pass_)
        if self.breakers.state("alice", SSH, self.now) is BreakerState.CLOSED:
            self.opened_at = None

    @rule(pass_=consumes(passes))
    def give_up(self, pass_: Pass) -> None:
        self.breakers.abandoned(pass_)

    @rule()
    def somebody_gets_through_at_last(self) -> None:
        """However many passes were never handed back."""
        self.now += 61.0
        pass_ = admitted(self.breakers, self.now)
        self.breakers.succeeded(pass_)
        self.opened_at = None

    @invariant()
    def it_is_closed_unless_it_was_opened(self) -> None:
        closed = self.breakers.state("alice", SSH, self.now) is BreakerState.CLOSED
        assert closed == (self.opened_at is None)


TestAnyOutcomes = AnyOutcomes.TestCase

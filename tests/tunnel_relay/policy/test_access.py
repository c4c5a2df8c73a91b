"""Who may do what, and how much of it at a time."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.policy.access import ENTERPRISE, FREE, PREMIUM, Access, Denial, Feature, Held, Mode, Tier
from tunnel_relay.policy.rate import Rate, RateLimits
from tunnel_relay.protocol.multiplexer import Reason

SMALL = Tier(name="small", most={Held.SESSIONS: 2})


def test_free_users_run_ssh_themselves_and_others_may_let_the_relay() -> None:
    assert FREE.refuse_mode(Mode.END_TO_END) is None
    assert FREE.refuse_mode(Mode.RELAY_SSH) == Denial(
        Reason.NOT_ALLOWED,
        "the tier 'free' has no mode 'relay-ssh'; "
        "issue the token for another tier, or allow it in [tiers.free] modes at the relay",
    )
    assert PREMIUM.refuse_mode(Mode.RELAY_SSH) is None


def test_features_are_by_tier() -> None:
    assert FREE.refuse_feature(Feature.REQUESTS) is None
    assert FREE.refuse_feature(Feature.COMPRESSION) == Denial(
        Reason.NOT_ALLOWED, "the tier 'free' has no 'compression'"
    )
    assert not [feature for feature in Feature if ENTERPRISE.refuse_feature(feature)]


def test_each_tier_has_all_that_the_one_below_has() -> None:
    for less, more in ((FREE, PREMIUM), (PREMIUM, ENTERPRISE)):
        assert less.modes <= more.modes
        assert less.features <= more.features
        assert less.rates.requests.tokens < more.rates.requests.tokens
        assert less.rates.opens.tokens < more.rates.opens.tokens
        assert all(less.most[held] <= more.most[held] for held in Held)


def test_free_users_have_the_numbers_of_the_design() -> None:
    assert FREE.rates.requests == Rate(100, 60.0)
    assert FREE.rates.opens == Rate(50, 1.0)
    assert {tier.most[Held.SSH_CONNECTIONS] for tier in (FREE, PREMIUM, ENTERPRISE)} == {3}


@pytest.mark.parametrize(
    ("name", "tier"), [("premium", PREMIUM), ("", FREE), ("Premium", FREE), ("gold", FREE)]
)
def test_a_tier_that_is_not_known_opens_nothing(name: str, tier: Tier) -> None:
    assert Access().tier(name) is tier


def test_rates_go_by_tier() -> None:
    access = Access()
    limits = RateLimits(access.rates(), default=access.tier("").rates)
    assert sum(not limits.open("alice", "premium", 0.0) for _ in range(300)) == 200
    assert sum(not limits.open("bob", "gold", 0.0) for _ in range(300)) == 50


def test_who_has_the_most_gets_no_more_until_one_is_given_back() -> None:
    access = Access((SMALL,), "small")
    assert access.take("alice", "small", Held.SESSIONS) is None
    assert access.take("alice", "small", Held.SESSIONS) is None
    assert access.take("alice", "small", Held.SESSIONS) == Denial(
        Reason.LIMIT, "2 sessions are the most that the tier allows at a time"
    )
    assert access.take("bob", "small", Held.SESSIONS) is None
    assert [access.take("alice", "small", Held.STREAMS) for _ in range(1000)] == [None] * 1000
    access.give_back("alice", Held.SESSIONS)
    assert access.take("alice", "small", Held.SESSIONS) is None


def test_a_user_whose_tier_shrinks_keeps_what_there_is_and_gets_no_more() -> None:
    access = Access((SMALL, Tier(name="large")), "small")
    for _ in range(5):
        assert access.take("alice", "large", Held.SESSIONS) is None
    denial = access.take("alice", "small", Held.SESSIONS)
    assert denial is not None
    assert denial.detail.startswith("5 sessions")


def test_what_was_never_taken_cannot_be_given_back() -> None:
    with pytest.raises(KeyError):
        Access().give_back("alice", Held.STREAMS)


@given(st.lists(st.tuples(st.sampled_from(["alice", "bob"]), st.sampled_from(list(Held)), st.booleans())))
def test_counts_are_right_and_nothing_is_kept_of_those_who_have_nothing(
    steps: list[tuple[str, Held, bool]],
) -> None:
    access, expected = Access((SMALL,), "small"), Counter[tuple[str, Held]]()
    for user, held, takes in steps:
        if not takes and expected[user, held]:
            access.give_back(user, held)
            expected[user, held] -= 1
        elif takes and access.take(user, "small", held) is None:
            expected[user, held] += 1
        assert access.held(user, held) == expected[user, held]
        assert held is not Held.SESSIONS or expected[user, held] <= 2
    for (user, held), count in expected.items():
        for _ in range(count):
            access.give_back(user, held)
    assert not access._held


@pytest.mark.parametrize(("tiers", "default"), [((FREE, FREE), "free"), ((FREE,), "premium"), ((), "free")])
def test_tiers_that_cannot_be_told_apart_or_lack_the_default_are_refused(
    tiers: tuple[Tier, ...], default: str
) -> None:
    with pytest.raises(ValueError, match="name of its own"):
        Access(tiers, default)


def test_other_tiers_take_nothing_from_who_has_it() -> None:
    access = Access((attrs.evolve(FREE, most={Held.STREAMS: 2}),))
    for _ in range(2):
        assert access.take("alice", "free", Held.STREAMS) is None
    access.change((attrs.evolve(FREE, most={Held.STREAMS: 1}), PREMIUM))
    assert access.held("alice", Held.STREAMS) == 2
    access.give_back("alice", Held.STREAMS)
    assert access.take("alice", "free", Held.STREAMS) is not None
    assert access.tier("premium") is PREMIUM
    with pytest.raises(ValueError, match="default"):
        access.change((PREMIUM,))
    assert access.tier("premium") is PREMIUM


def test_what_has_changed_is_told_once() -> None:
    access = Access((SMALL,), "small")
    access.take("alice", "", Held.SESSIONS)
    # From now on somebody asks.
    assert access.changed() == []
    assert access.changed(everything=True) == [("alice", Held.SESSIONS, 1)]
    access.take("alice", "", Held.SESSIONS)
    access.take("bob", "", Held.SESSIONS)
    access.give_back("bob", Held.SESSIONS)
    assert access.changed() == [("alice", Held.SESSIONS, 2), ("bob", Held.SESSIONS, 0)]
    assert access.changed() == []


def test_what_is_elsewhere_counts_for_who_is_here() -> None:
    access = Access((SMALL,), "small")
    access.agree("alice", Held.SESSIONS, 100)
    assert access.take("alice", "", Held.SESSIONS) is None
    access.agree("alice", Held.SESSIONS, 1)
    denial = access.take("alice", "", Held.SESSIONS)
    assert denial is not None
    assert denial.detail.startswith("2 sessions")
    access.forget_elsewhere()
    assert access.take("alice", "", Held.SESSIONS) is None

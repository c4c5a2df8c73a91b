"""How often may be asked for something, and when again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.policy import rate as rate_module
from tunnel_relay.policy.rate import GRANTED, PER_ADDRESS, Act, Buckets, Rate, RateLimits, Rates, address_key

NOW = 1_800_000_000.0
GENEROUS = Rates(requests=Rate(1000, 60.0), opens=Rate(200, 1.0))


def test_a_hundred_requests_may_come_at_once_and_then_one_every_0_6_s() -> None:
    limits = RateLimits({})
    assert [limits.request("alice", "free", NOW) for _ in range(100)] == [0.0] * 100
    wait = limits.request("alice", "free", NOW)
    assert wait == pytest.approx(0.6, abs=1e-5)
    assert limits.request("alice", "free", NOW + 0.5) == pytest.approx(0.1, abs=1e-5)
    assert limits.request("alice", "free", NOW + wait) == 0.0
    assert limits.request("alice", "free", NOW + wait) > 0.0
    assert limits.violations == {Act.ADDRESS: 0, Act.UPGRADE: 0, Act.REQUEST: 3, Act.OPEN: 0}


def test_upgrades_and_requests_share_a_bucket_and_opens_have_their_own() -> None:
    limits = RateLimits({})
    for _ in range(50):
        assert limits.request("alice", "free", NOW) == limits.upgrade("alice", "free", NOW) == 0.0
    assert limits.request("alice", "free", NOW) > 0.0
    assert limits.upgrade("alice", "free", NOW) > 0.0
    assert [limits.open("alice", "free", NOW) for _ in range(50)] == [0.0] * 50
    assert limits.open("alice", "free", NOW) == pytest.approx(0.02, abs=1e-5)
    assert limits.open("alice", "free", NOW + 0.02) == 0.0
    assert limits.violations[Act.UPGRADE] == limits.violations[Act.OPEN] == 1


def test_opens_may_come_on_credit_for_one_more_burst() -> None:
    limits = RateLimits({})
    assert {limits.pace_open("alice", "free", NOW) for _ in range(50)} == {GRANTED}
    debts = [limits.pace_open("alice", "free", NOW) for _ in range(50)]
    assert not any(debt.refused for debt in debts)
    assert [debt.wait for debt in debts] == pytest.approx(
        [0.02 * number for number in range(1, 51)], abs=1e-5
    )
    refused = limits.pace_open("alice", "free", NOW)
    assert refused.refused
    assert refused.wait == pytest.approx(0.02, abs=1e-5)
    # Who has waited for that long has paid, and no more than that.
    assert limits.pace_open("alice", "free", NOW + 1.0).wait == pytest.approx(0.02, abs=1e-5)
    assert limits.violations[Act.OPEN] == 52
    assert limits.pace_open("bob", "free", NOW) == GRANTED


def test_sessions_may_begin_as_often_as_streams_and_take_nothing_from_them() -> None:
    limits = RateLimits({"premium": GENEROUS})
    for tier, burst in (("free", 50), ("premium", 200)):
        paces = [limits.pace_session(tier, tier, NOW) for _ in range(2 * burst + 2)]
        assert not any(pace.refused for pace in paces[: 2 * burst - 2])
        assert paces[-1].refused
        assert paces[burst - 2] == GRANTED
        assert limits.pace_open(tier, tier, NOW) == GRANTED


def test_requests_that_are_here_are_done_but_slow_down_what_follows() -> None:
    limits = RateLimits({})
    paces = [limits.pace_request("alice", "free", NOW) for _ in range(164)]
    assert not any(pace.refused for pace in paces)
    assert paces[-1].wait == pytest.approx(64 * 0.6, abs=1e-4)
    assert limits.upgrade("alice", "free", NOW) == pytest.approx(65 * 0.6, abs=1e-4)


def test_other_rates_forgive_nothing() -> None:
    limits = RateLimits({})
    for _ in range(100):
        limits.request("alice", "free", NOW)
    limits.change(RateLimits({}, Rates(requests=Rate(200, 60.0)), Rate(1, 60.0)))
    assert limits.request("alice", "free", NOW) == pytest.approx(0.3, abs=1e-4)
    assert limits.connect("192.0.2.1", NOW) == 0.0
    assert limits.connect("192.0.2.1", NOW) > 0.0


def test_users_do_not_pay_for_each_other() -> None:
    limits = RateLimits({})
    for _ in range(101):
        limits.request("alice", "free", NOW)
    assert limits.request("bob", "free", NOW) == 0.0


def test_tiers_have_rates_of_their_own_and_unknown_ones_the_default() -> None:
    limits = RateLimits({"premium": GENEROUS})

    def allowed(user: str, tier: str) -> int:
        return sum(not limits.request(user, tier, NOW) for _ in range(2000))

    assert (allowed("alice", "premium"), allowed("bob", "free"), allowed("carol", "")) == (1000, 100, 100)


def test_a_user_who_changes_the_tier_keeps_the_debt() -> None:
    """A token that is refreshed for another tier does not fill the bucket."""
    limits = RateLimits({"premium": GENEROUS})
    for _ in range(100):
        limits.request("alice", "free", NOW)
    assert 0.0 < limits.request("alice", "premium", NOW) < 0.1


def test_an_address_is_limited_before_anybody_is_a_user() -> None:
    limits = RateLimits({}, per_address=Rate(60, 60.0, 5))
    assert [limits.connect("192.0.2.1", NOW) for _ in range(5)] == [0.0] * 5
    assert limits.connect("192.0.2.1", NOW) == pytest.approx(1.0, abs=1e-5)
    assert limits.connect("::ffff:192.0.2.1", NOW) > 0.0
    assert limits.connect("192.0.2.2", NOW) == 0.0
    assert limits.violations[Act.ADDRESS] == 2


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a socket's path", "a socket's path"),
    ],
)
def test_addresses_of_one_network_are_one_with_ipv6(address: str, key: str) -> None:
    assert address_key(address) == key


RATES = st.builds(
    Rate,
    st.floats(0.1, 1000),
    st.floats(0.1, 100),
    st.floats(1, 100),
)


@given(RATES, st.lists(st.floats(0, 10), max_size=200), st.sampled_from([0.0, NOW]))
def test_no_stretch_of_time_gives_more_than_it_should(rate: Rate, pauses: list[float], now: float) -> None:
    buckets = Buckets()
    taken: list[float] = []
    for pause in pauses:
        now += pause
        wait = buckets.take("alice", rate, now)
        assert 0.0 <= wait <= rate.period / rate.tokens + 1e-5
        if not wait:
            taken.append(now)
        # Each stretch that ends here.
        for number, since in enumerate(reversed(taken), 1):
            most = rate.burst + (now - since + 1e-5) * rate.tokens / rate.period
            assert number <= most + 1e-6


@given(RATES, st.lists(st.floats(0, 2), min_size=1, max_size=100), st.sampled_from([0.0, NOW]))
def test_who_waits_as_told_is_let_through_and_who_does_not_is_not(
    rate: Rate, pauses: list[float], now: float
) -> None:
    buckets = Buckets()
    for pause in pauses:
        now += pause
        wait = buckets.take("alice", rate, now)
        if wait:
            if wait > 1e-4:
                assert buckets.take("alice", rate, now + wait / 2) > 0.0
            now += wait
            assert buckets.take("alice", rate, now) == 0.0


def test_buckets_that_are_full_again_are_forgotten() -> None:
    buckets = Buckets()
    for number in range(1000):
        buckets.take(f"user {number}", Rate(1, 1.0), NOW)
    assert len(buckets) == 1000
    buckets.take("alice", Rate(1, 1.0), NOW + 1.5)
    assert len(buckets) == 1


def test_memory_is_bounded_and_those_who_go_on_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_module, "MOST_BUCKETS", 10)
    buckets, slow = Buckets(), Rate(1, 1000.0)
    assert buckets.take("flooding", slow, NOW) == 0.0
    for number in range(100):
        buckets.take(f"user {number}", slow, NOW)
        assert buckets.take("flooding", slow, NOW) > 0.0
        assert len(buckets) <= 10


def test_a_clock_that_goes_back_locks_nobody_out_for_longer_than_that() -> None:
    buckets = Buckets()
    assert buckets.take("alice", Rate(1, 1.0), NOW) == 0.0
    assert buckets.take("alice", Rate(1, 1.0), NOW - 5.0) == pytest.approx(6.0, abs=1e-5)


@pytest.mark.parametrize(("tokens", "period", "burst"), [(0, 1, 1), (1, 0, 1), (1, 1, 0.5)])
def test_rates_that_let_nobody_through_are_refused(tokens: float, period: float, burst: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        Rate(tokens, period, burst)


def test_a_bucket_for_less_than_one_token_a_period_still_holds_one() -> None:
    assert Rate(0.5, 1.0).burst == 1.0
    assert PER_ADDRESS.burst < PER_ADDRESS.tokens


def test_what_was_taken_is_told_once() -> None:
    buckets = Buckets()
    rate = Rate(2, 1.0)
    buckets.take("alice", rate, 0.0)
    # From now on somebody asks.
    assert buckets.taken() == {}
    for _ in range(3):
        buckets.take("alice", rate, 10.0)
        buckets.borrow("bob", rate, 10.0, 1)
    buckets.borrow("bob", rate, 10.0, 1)
    assert buckets.taken() == {"alice": (rate, 2), "bob": (rate, 3)}
    assert buckets.taken() == {}


def test_what_was_taken_elsewhere_is_missing_here() -> None:
    buckets = Buckets()
    rate = Rate(2, 1.0)
    buckets.agree("alice", 12.0, 10.0)
    assert buckets.take("alice", rate, 10.0) == pytest.approx(1.5)
    buckets.agree("alice", 11.0, 10.0)
    assert buckets.take("alice", rate, 10.0) == pytest.approx(1.5)
    assert buckets.take("alice", rate, 11.5) == 0.0

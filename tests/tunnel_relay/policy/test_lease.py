"""Who has an agent's registration, and who had it."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tunnel_relay.policy import lease as lease_module
from tunnel_relay.policy.lease import LENGTH, RENEW_EVERY, AgentKey, Fence, Lease, Leases

NAS = AgentKey("alice", "nas", "one")
OTHER = AgentKey("alice", "nas", "two")


def acquired(leases: Leases, key: AgentKey = NAS, holder: str = "server-1", now: float = 0.0) -> Lease:
    """Return a registration that there was room for."""
    lease = leases.acquire(key, holder, now)
    assert lease is not None
    return lease


def test_who_comes_later_takes_over_at_once_and_the_old_one_can_do_nothing_more() -> None:
    leases = Leases()
    old = acquired(leases)
    new = acquired(leases, holder="server-2", now=1.0)
    assert new.fence > old.fence
    assert leases.renew(old, 2.0) is None
    assert not leases.release(old)
    assert not leases.holds(old, 2.0)
    assert leases.find(NAS, 2.0) == new
    assert leases.release(new)
    assert leases.find(NAS, 2.0) is None


def test_it_ends_unless_it_is_renewed() -> None:
    leases = Leases()
    lease = acquired(leases)
    renewed = leases.renew(lease, RENEW_EVERY)
    assert renewed is not None
    assert renewed == Lease(NAS, "server-1", lease.fence, RENEW_EVERY + LENGTH)
    assert leases.holds(lease, LENGTH)
    assert leases.find(NAS, RENEW_EVERY + LENGTH) is None
    assert leases.renew(renewed, RENEW_EVERY + LENGTH) is None
    assert not leases.holds(renewed, RENEW_EVERY + LENGTH)
    assert list(leases.of_user("alice", RENEW_EVERY + LENGTH)) == []


def test_numbers_go_on_rising_though_everything_is_forgotten() -> None:
    leases = Leases()
    first = acquired(leases)
    leases.release(first)
    assert len(leases) == 0
    second = acquired(leases)
    assert second.fence > first.fence
    assert acquired(leases, now=1000.0).fence > second.fence


def test_agents_of_one_name_are_a_pool_of_one_user_only() -> None:
    leases = Leases()
    one, two = acquired(leases), acquired(leases, OTHER)
    acquired(leases, AgentKey("alice", "laptop", "one"))
    acquired(leases, AgentKey("bob", "nas", "one"))
    one = acquired(leases)
    assert leases.pool("alice", "nas", 0.0) == [two, one]
    assert leases.pool("carol", "nas", 0.0) == []
    assert len(list(leases.of_user("alice", 0.0))) == 3


def test_what_has_ended_is_forgotten() -> None:
    leases = Leases()
    for number in range(100):
        acquired(leases, AgentKey(f"user {number}", "nas", "one"), now=number)
    assert len(leases) == LENGTH
    acquired(leases, now=1000.0)
    assert leases._users.keys() == {"alice"}


def test_what_has_ended_is_forgotten_though_what_is_older_was_renewed() -> None:
    leases = Leases()
    lease = acquired(leases)
    acquired(leases, OTHER)
    leases.renew(lease, RENEW_EVERY)
    acquired(leases, AgentKey("bob", "nas", "one"), now=LENGTH)
    assert len(leases) == 2


def test_a_user_registers_so_many_and_may_always_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "MOST_AGENTS", 2)
    leases = Leases()
    acquired(leases)
    acquired(leases, OTHER)
    assert leases.acquire(AgentKey("alice", "nas", "three"), "server-1", 0.0) is None
    acquired(leases)
    acquired(leases, AgentKey("bob", "nas", "three"))
    acquired(leases, AgentKey("alice", "nas", "three"), now=LENGTH)


def test_a_fence_lets_nobody_act_who_was_followed_by_another() -> None:
    fence = Fence()
    assert [fence.admits(number) for number in (3, 3, 5, 4, 3, 5)] == [True, True, True, False, False, True]


class AnyServers(RuleBasedStateMachine):
    """Servers that register, renew and release in any order, on what they still believe in."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases()
        self.now = 0.0
        self.believed: list[Lease] = []
        self.last: dict[AgentKey, int] = {}

    @rule(pause=st.sampled_from([0.0, 1.0, RENEW_EVERY, LENGTH]))
    def wait(self, pause: float) -> None:
        self.now += pause

    @rule(key=st.sampled_from([NAS, OTHER]), holder=st.sampled_from(["server-1", "server-2"]))
    def acquire(self, key: AgentKey, holder: str) -> None:
        lease = acquired(self.leases, key, holder, self.now)
        assert lease.fence > max(self.last.values(), default=0)
        self.believed.append(lease)
        self.last[key] = lease.fence

    @rule(index=st.integers(0, 20))
    def renew(self, index: int) -> None:
        if index < len(self.believed):
            renewed = self.leases.renew(self.believed[index], self.now)
            if renewed is not None:
                assert renewed.fence == self.last[renewed.key]
                self.believed[index] = renewed

    @rule(index=st.integers(0, 20))
    def release(self, index: int) -> None:
        if index < len(self.believed) and self.leases.release(self.believed[index]):
            assert self.leases.find(self.believed[index].key, self.now) is None

    @invariant()
    def only_the_last_of_each_counts(self) -> None:
        for lease in self.believed:
            assert not self.leases.holds(lease, self.now) or lease.fence == self.last[lease.key]
        for key in (NAS, OTHER):
            found = self.leases.find(key, self.now)
            assert found is None or self.leases.holds(found, self.now)


TestAnyServers = AnyServers.TestCase

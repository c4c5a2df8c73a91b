from __future__ import annotations

import ipaddress
import math
import threading
from collections.abc import Mapping

import attrs
import pytest
import trio
import trio.testing

from session_proxy.errors import DialTimeoutError, UpstreamStartError
from session_proxy.outbound import fleet
from session_proxy.outbound.failover import LOOKUP_LIMIT, Dialer, open_ways, system_addresses
from session_proxy.outbound.transport import HealthState, Services
from session_proxy.policy.changes import compare
from session_proxy.policy.route_table import RouteTable
from session_proxy.policy.rules import Address, Decision, Rule
from session_proxy.profile.model import Failover, Limits, Profile, SshUpstream
from session_proxy.target import Target
from tests.support.transports import FakeTransport, Yard

DB = Target.of("db.internal", 5432)


def dialer(transports: Mapping[str, FakeTransport], *rules: Rule) -> Dialer:
    return Dialer(table=RouteTable.build(rules, "direct"), transports=transports)


def via(*upstreams: str) -> Decision:
    return Decision("routes[0]", upstreams)


async def test_the_caller_learns_why_before_its_own_deadline(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(10), pytest.raises(DialTimeoutError, match=r"through dev: no answer within 9.9 s"):
        await dialer({"dev": FakeTransport([math.inf])}).connect(DB, via("dev"))


async def test_without_a_deadline_the_connect_limit_holds(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()

    with pytest.raises(DialTimeoutError):
        await dialer({"dev": FakeTransport([math.inf])}).connect(DB, via("dev"))

    assert trio.current_time() - began == pytest.approx(30)


async def test_health_covers_every_upstream() -> None:
    transports = {"direct": FakeTransport(), "dev": FakeTransport(state=HealthState.DOWN, reason="x")}

    assert {name: health.state for name, health in dialer(transports).health().items()} == {
        "direct": HealthState.READY,
        "dev": HealthState.DOWN,
    }


def fake_look_up(name: str) -> tuple[Address, ...]:
    return (ipaddress.ip_address("10.1.2.3"),) if name == "db.internal" else ()


@pytest.mark.parametrize(("host", "rule"), [("db.internal", "routes[0]"), ("other.internal", "default")])
async def test_names_are_looked_up_where_a_rule_says_so(host: str, rule: str) -> None:
    local = attrs.evolve(Rule.of("10.0.0.0/8", "dev"), resolve="local")
    table = RouteTable.build([local], "direct")

    decision = await Dialer(table, {}, look_up=fake_look_up).decide(Target.of(host, 443))

    assert decision.rule == rule


async def test_a_name_that_cannot_be_looked_up_in_time_matches_no_address_rule(
    autojump_clock: trio.testing.MockClock,
) -> None:
    local = attrs.evolve(Rule.of("10.0.0.0/8", "dev"), resolve="local")
    gone = threading.Event()

    def hang(name: str) -> tuple[Address, ...]:
        assert gone.wait(10)
        return (ipaddress.ip_address("10.1.2.3"),)

    began = trio.current_time()
    decision = await Dialer(RouteTable.build([local], "direct"), {}, look_up=hang).decide(DB)
    gone.set()

    assert decision.rule == "default"
    assert trio.current_time() - began == pytest.approx(LOOKUP_LIMIT, abs=0.1)


async def test_names_are_not_looked_up_otherwise() -> None:
    def never(name: str) -> tuple[Address, ...]:
        raise AssertionError(name)

    table = RouteTable.build([Rule.of("10.0.0.0/8", "dev")], "direct")

    assert (await Dialer(table, {}, look_up=never).decide(DB)).rule == "default"


def test_the_systems_resolver() -> None:
    assert ipaddress.ip_address("127.0.0.1") in system_addresses("localhost")
    assert system_addresses("no-such-name.invalid") == ()
    assert system_addresses(f"{'x' * 70}.invalid") == ()


@pytest.fixture
def yard(monkeypatch: pytest.MonkeyPatch) -> Yard:
    yard = Yard()
    monkeypatch.setattr(fleet, "open_transport", yard.open_transport)
    return yard


BASTION = SshUpstream(address=Target("bastion", 22))
OLD = Profile(upstreams={"dev": BASTION, "gone": BASTION}, routes=(Rule.of("*", ["gone", "dev"]),))
NEW = Profile(
    upstreams={"dev": BASTION, "edge": BASTION},
    routes=(Rule.of("*", ["edge", "direct"]),),
    default="reject",
    limits=Limits(connect=3),
    failover=Failover(back_after=4),
)


async def test_a_change_sends_new_connections_elsewhere(yard: Yard) -> None:
    async with open_ways(OLD, Services()) as ways:
        dialer = ways.dialer
        dev = dialer.transports["dev"]
        assert (await dialer.connect(DB, await dialer.decide(DB))).upstream == "gone"

        async with ways.prepare(NEW, compare(OLD, NEW)) as prepared:
            assert list(dialer.transports) == ["direct", "dev", "gone"]
            ways.commit(prepared)

        assert list(dialer.transports) == ["direct", "dev", "edge"]
        assert dialer.transports["dev"] is dev
        assert (await dialer.connect(DB, await dialer.decide(DB))).upstream == "edge"
        assert (dialer.connect_limit, dialer.lookout.memory.failback) == (3, 4)
        assert dialer.lookout.raced == {"edge"}
        await trio.testing.wait_all_tasks_blocked()
        assert yard.closed == [yard.latest["gone"]]


async def test_a_change_that_is_not_made_leaves_no_trace(yard: Yard) -> None:
    async with open_ways(OLD, Services()) as ways:
        async with ways.prepare(NEW, compare(OLD, NEW)):
            pass
        await trio.testing.wait_all_tasks_blocked()
        assert yard.closed == [yard.latest["edge"]]

        yard.faulty = {"edge"}
        with pytest.raises(UpstreamStartError, match="edge is broken"):
            async with ways.prepare(NEW, compare(OLD, NEW)):
                raise AssertionError

        dialer = ways.dialer
        assert (await dialer.connect(DB, await dialer.decide(DB))).upstream == "gone"
        assert list(dialer.transports) == ["direct", "dev", "gone"]

"""Upstreams that are exchanged while connections go on, in virtual time."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from session_proxy.errors import TransportDownError, UpstreamStartError
from session_proxy.events import Event, LinksChanged, Notice, UpstreamDown, UpstreamUp
from session_proxy.outbound import fleet as fleet_module
from session_proxy.outbound.fleet import LOOK, MOST_LEAVING, Fleet, identity_of, open_fleet
from session_proxy.outbound.lookout import Attempt, Lookout
from session_proxy.outbound.transport import HealthState, Services, Transport
from session_proxy.policy.race import Memory
from session_proxy.profile.model import AwgUpstream, SshUpstream, Upstream
from session_proxy.profile.secret import Secret
from session_proxy.target import Target
from tests.support.transports import Yard

BASTION = SshUpstream(address=Target("bastion", 22), startup="required")
EDGE = AwgUpstream(
    endpoint=Target("edge", 443),
    private_key=Secret("literal", "", "ours"),
    public_key=Secret("literal", "", "theirs"),
    startup="required",
)

# Longer than anybody waits who waits for a reason.
LONG = 300.0


@attrs.frozen(eq=False)
class World:
    """A fleet whose upstreams are fakes."""

    fleet: Fleet
    lookout: Lookout
    yard: Yard
    events: list[Event]
    changes: list[Mapping[str, Transport]]

    async def change(
        self, upstreams: Mapping[str, Upstream], keep: Sequence[str] = (), drain: float = 10
    ) -> None:
        """Have the fleet consist of *upstreams*, which are new, and of those to *keep*."""
        leaving = self.fleet.transports.keys() - {"direct", *keep}
        berths = await self.fleet.stage(upstreams, leaving)
        self.fleet.commit(berths, [*keep, *upstreams], drain=drain)

    def notices(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Notice)]


@pytest.fixture
def yard(monkeypatch: pytest.MonkeyPatch) -> Yard:
    yard = Yard()
    monkeypatch.setattr(fleet_module, "open_transport", yard.open_transport)
    return yard


@asynccontextmanager
async def open_world_of(yard: Yard) -> AsyncGenerator[World]:
    events: list[Event] = []
    changes: list[Mapping[str, Transport]] = []
    lookout = Lookout(Memory(60))
    async with open_fleet(Services(notify=events.append), lookout) as fleet:
        fleet.on_change = changes.append
        yield World(fleet, lookout, yard, events, changes)


async def test_without_upstreams_there_is_the_direct_way(yard: Yard) -> None:
    async with open_world_of(yard) as world:
        assert list(world.fleet.transports) == ["direct"]


async def test_upstreams_are_opened_at_the_same_time_and_closed_in_the_end(
    yard: Yard, autojump_clock: trio.testing.MockClock
) -> None:
    yard.setup = 5
    async with open_world_of(yard) as world:
        began = trio.current_time()
        await world.change({"b": BASTION, "a": BASTION})
        assert trio.current_time() - began == pytest.approx(5)
        assert list(world.fleet.transports) == ["direct", "b", "a"]
        assert world.changes[-1] == world.fleet.transports
        assert yard.closed == []
    assert len(yard.closed) == 2


async def test_one_that_does_not_work_ends_the_start_and_closes_the_others(yard: Yard) -> None:
    yard.faulty = {"bad"}
    async with open_world_of(yard) as world:
        with pytest.raises(UpstreamStartError, match="upstream bad: bad is broken"):
            await world.change({"a": BASTION, "bad": BASTION, "b": BASTION})
        await trio.testing.wait_all_tasks_blocked()
        assert set(yard.closed) == set(yard.opened)
        assert list(world.fleet.transports) == ["direct"]
        assert world.changes == []


async def test_a_start_that_is_given_up_leaves_nothing_open(
    yard: Yard, autojump_clock: trio.testing.MockClock
) -> None:
    yard.setup = 5
    async with open_world_of(yard) as world:
        with trio.move_on_after(1):
            await world.change({"a": BASTION})
        await trio.sleep(10)
        assert yard.opened == []
        assert list(world.fleet.transports) == ["direct"]


async def test_what_is_staged_and_not_wanted_is_closed(yard: Yard) -> None:
    async with open_world_of(yard) as world:
        berths = await world.fleet.stage({"a": BASTION})
        assert list(world.fleet.transports) == ["direct"]
        world.fleet.discard(berths)
        await berths[0].closed.wait()
        assert yard.closed == yard.opened


async def test_one_that_leaves_stays_open_for_its_connections(
    yard: Yard, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world_of(yard) as world:
        await world.change({"a": BASTION, "b": BASTION})
        old, kept = yard.latest["a"], yard.latest["b"]
        old.carried = 2
        await world.change({"a": BASTION}, keep=["b"])
        new = yard.latest["a"]
        assert world.fleet.transports == {"direct": world.fleet.transports["direct"], "b": kept, "a": new}

        await trio.sleep(LONG)
        assert (yard.closed, world.fleet.leaving) == ([], 1)
        old.carried = 0
        await trio.sleep(2 * LOOK)
        assert (yard.closed, world.fleet.leaving) == ([old], 0)
        assert world.notices() == ["left by a change of the profile; stays for its open connections (2)"]
        assert [event for event in world.events if isinstance(event, LinksChanged)] == [LinksChanged("a", 0)]


async def test_one_that_leaves_waits_for_connections_that_are_being_opened(
    yard: Yard, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world_of(yard) as world:
        await world.change({"a": BASTION})
        [old] = yard.opened
        attempt = Attempt(trio.CancelScope(), lambda: False, None)
        world.lookout.begin(old, attempt)
        await world.change({})
        await trio.sleep(LONG)
        assert yard.closed == []
        world.lookout.end(old, attempt)
        await trio.sleep(2 * LOOK)
        assert yard.closed == [old]
        assert world.events[-1] == LinksChanged("a", 0)


async def test_one_without_connections_is_closed_at_once(yard: Yard) -> None:
    async with open_world_of(yard) as world:
        await world.change({"a": BASTION})
        await world.change({})
        await trio.testing.wait_all_tasks_blocked()
        assert yard.closed == yard.opened
        assert world.fleet.leaving == 0


async def test_of_one_that_has_left_no_state_is_told(
    yard: Yard, autojump_clock: trio.testing.MockClock
) -> None:
    """It would be taken for that of the upstream which has its name now."""
    async with open_world_of(yard) as world:
        await world.change({"a": BASTION})
        tell = yard.services[0].notify
        tell(UpstreamUp("a", "bastion", 1.0))
        yard.opened[0].carried = 1
        berths = await world.fleet.stage({"a": BASTION}, ["a"])
        yard.services[1].notify(LinksChanged("a", 3))
        world.fleet.commit(berths, ["a"], drain=0)
        assert world.events[-1] == LinksChanged("a", 3)
        world.events.clear()
        tell(UpstreamDown("a", "bastion", "lost", None))
        tell(LinksChanged("a", 0))
        tell(Notice("a", "the server says good-bye"))
        assert world.events == [Notice("a", "the server says good-bye")]


async def test_what_was_remembered_of_one_that_leaves_is_forgotten(yard: Yard) -> None:
    async with open_world_of(yard) as world:
        await world.change({"a": BASTION})
        yard.opened[0].become(HealthState.DOWN)
        await trio.testing.wait_all_tasks_blocked()
        assert world.lookout.memory.rests("a")
        await world.change({"a": BASTION})
        await trio.testing.wait_all_tasks_blocked()
        assert not world.lookout.memory.rests("a")
        yard.opened[0].become(HealthState.DOWN)
        await trio.testing.wait_all_tasks_blocked()
        assert not world.lookout.memory.rests("a")


async def test_the_oldest_is_closed_where_too_many_carry_on(
    yard: Yard, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world_of(yard) as world:
        for _ in range(MOST_LEAVING + 2):
            await world.change({"a": BASTION})
            yard.opened[-1].carried = 1
        await trio.sleep(2 * LOOK)
        assert yard.closed == yard.opened[:1]
        assert world.fleet.leaving == MOST_LEAVING


def test_only_a_key_is_used_once_at_a_time() -> None:
    other = attrs.evolve(EDGE, private_key=Secret("literal", "", "another"))

    assert identity_of(BASTION) is None
    assert identity_of(EDGE) == identity_of(attrs.evolve(EDGE, mtu=1400)) != identity_of(other)


async def test_one_with_the_same_key_is_opened_when_the_old_one_is_closed(
    yard: Yard, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world_of(yard) as world:
        await world.change({"edge": EDGE})
        [old] = yard.opened
        old.carried = 1
        await world.change({"renamed": EDGE}, drain=math.inf)
        waiting = world.fleet.transports["renamed"]
        assert waiting.health().state is HealthState.STARTING
        await trio.sleep(LONG)
        assert len(yard.opened) == 1
        old.carried = 0
        await trio.sleep(2 * LOOK)
        assert world.fleet.transports["renamed"] is yard.opened[1]
        assert world.changes[-1] == world.fleet.transports
        assert await waiting.connect_tcp(Target("db", 1))
        assert yard.upstreams[1].startup == "background"


async def test_the_old_one_of_the_same_key_has_limited_time(
    yard: Yard, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world_of(yard) as world:
        await world.change({"edge": EDGE})
        yard.opened[0].carried = 3
        await world.change({"edge": EDGE}, drain=10)
        await trio.sleep(9)
        assert len(yard.opened) == 1
        await trio.sleep(1 + 2 * LOOK)
        assert len(yard.opened) == 2
        assert world.notices()[-1] == "left by a change of the profile; its open connections are cut (3)"


async def test_one_that_cannot_follow_the_old_one_says_so(yard: Yard) -> None:
    async with open_world_of(yard) as world:
        await world.change({"edge": EDGE})
        yard.faulty = {"edge"}
        await world.change({"edge": EDGE})
        await trio.testing.wait_all_tasks_blocked()
        transport = world.fleet.transports["edge"]
        assert transport.health().state is HealthState.DOWN
        with pytest.raises(TransportDownError, match="edge is broken"):
            await transport.connect_tcp(Target("db", 1))
        assert UpstreamDown("edge", "edge", "edge is broken", None) in world.events
        yard.faulty = set()
        await world.change({"edge": EDGE})
        await trio.testing.wait_all_tasks_blocked()
        assert world.fleet.transports["edge"] is yard.opened[-1]

"""Sessions per destination over fake links, in virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from session_proxy.errors import ExitCode, RefusedError, TransportDownError, UdpUnsupportedError
from session_proxy.events import Event, LinksChanged, UpstreamDown, UpstreamUp
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.port_pool import (
    IDLE_BEFORE_CLOSING,
    IDLE_CHECK,
    MOST_SESSIONS,
    MOST_TO_ONE,
    PROBE_INTERVAL,
    PROBE_TARGET,
    SETUP_LIMIT,
    PortTransport,
    open_port_pool,
)
from session_proxy.outbound.transport import HealthState, Services
from session_proxy.target import Target
from tests.support.links import REFUSED, FakeLink

DB = Target.of("db.internal", 5432)
WEB = Target.of("web.internal", 443)


@attrs.define(eq=False)
class FakeSource:
    """Makes sessions in one second; an instance in *broken* fails instead."""

    entries: tuple[str, ...] = ("i-1", "i-2")
    broken: dict[str, LinkFailedError] = attrs.field(factory=dict[str, LinkFailedError])
    setup: float = 1.0
    asked: list[tuple[str, Target]] = attrs.field(factory=list[tuple[str, Target]])
    links: list[FakeLink] = attrs.field(factory=list[FakeLink])
    open_now: int = 0

    async def resolve(self, entry: str) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        if entry.startswith("tag:") and entry in self.broken:
            raise self.broken[entry]
        return (entry,)

    @asynccontextmanager
    async def connect(self, instance: str, target: Target) -> AsyncGenerator[FakeLink, None]:
        self.asked.append((instance, target))
        await trio.sleep(self.setup)
        if instance in self.broken:
            raise self.broken[instance]
        link = FakeLink(instance)
        if target != PROBE_TARGET:
            self.links.append(link)
        self.open_now += 1
        try:
            yield link
        finally:
            link.end("closed")
            self.open_now -= 1


@attrs.define(eq=False)
class Watched:
    """A source and everything that was said about it."""

    source: FakeSource = attrs.field(factory=FakeSource)
    events: list[Event] = attrs.field(factory=list[Event])

    @asynccontextmanager
    async def open(self, *, required: bool = True) -> AsyncGenerator[PortTransport, None]:
        services = Services(notify=self.events.append, rng=random.Random(5))
        async with open_port_pool("db", self.source, required=required, services=services) as transport:
            yield transport


async def test_the_instance_is_proven_at_the_start(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        assert watched.source.asked == [("i-1", PROBE_TARGET)]
        assert watched.source.open_now == 0
        health = transport.health()
        assert health.state is HealthState.READY
        assert health.details == (("via", "i-1"), ("sessions", "0"))
    assert watched.events == [UpstreamUp("db", "i-1", 1.0)]


async def test_one_session_per_destination_carries_all_its_connections(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(transport.connect_tcp, DB)
        nursery.start_soon(transport.connect_tcp, WEB)
        await trio.sleep(2)

        assert len(watched.source.asked[1:]) == 2
        assert set(watched.source.asked[1:]) == {("i-1", DB), ("i-1", WEB)}
        assert sorted(link.streams for link in watched.source.links) == [1, 3]
        assert transport.streams() == 4
        assert transport.health().details[-1] == ("sessions", "2")
    assert watched.source.open_now == 0
    links = [event.links for event in watched.events if isinstance(event, LinksChanged)]
    assert links[:2] == [1, 2]
    assert links[-1] == 0


async def test_where_one_connection_holds_up_the_others_new_ones_get_another_session(
    autojump_clock: MockClock,
) -> None:
    watched = Watched()
    async with watched.open() as transport:
        await transport.connect_tcp(DB)
        first = watched.source.links[0]
        first.held_up = True
        for _ in range(2):
            await transport.connect_tcp(DB)
        assert [link.streams for link in watched.source.links] == [1, 2]
        first.held_up = False
        await transport.connect_tcp(DB)
        assert [link.streams for link in watched.source.links] == [2, 2]


async def test_sessions_to_one_destination_are_bounded(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        for _ in range(MOST_TO_ONE + 2):
            await transport.connect_tcp(DB)
            watched.source.links[-1].held_up = True
        assert [link.streams for link in watched.source.links] == [2, 2, 1, 1]


async def test_no_second_session_where_other_destinations_use_the_rest(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        for port in range(1, MOST_SESSIONS + 1):
            await transport.connect_tcp(Target.of("h", port))
        watched.source.links[0].held_up = True
        await transport.connect_tcp(Target.of("h", 1))
        assert watched.source.links[0].streams == 2


async def test_an_idle_session_is_closed(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        stream = await transport.connect_tcp(DB)
        await trio.sleep(10 * IDLE_BEFORE_CLOSING)
        assert watched.source.open_now == 1
        await stream.aclose()
        await trio.sleep(IDLE_BEFORE_CLOSING + 2 * IDLE_CHECK)
        assert watched.source.open_now == 0
        # The next connection makes a new one.
        await transport.connect_tcp(DB)
        assert len(watched.source.links) == 2


async def test_a_session_that_ends_resets_its_own_connections_only(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        broken, whole = await transport.connect_tcp(DB), await transport.connect_tcp(WEB)
        watched.source.links[0].end("the agent was restarted")
        with pytest.raises(trio.BrokenResourceError):
            await broken.receive_some()
        with trio.move_on_after(1) as scope:
            await whole.receive_some()
        assert scope.cancelled_caught
        assert transport.health().state is HealthState.READY
        await transport.connect_tcp(DB)
        assert len(watched.source.links) == 3
    assert UpstreamDown("db", "i-1", "db.internal:5432: the agent was restarted", None) in watched.events


async def test_a_session_that_ends_while_a_connection_is_opened_is_replaced(
    autojump_clock: MockClock,
) -> None:
    watched = Watched()
    async with watched.open() as transport:
        await transport.connect_tcp(DB)
        watched.source.links[0].breaks_at_next_open = True
        await transport.connect_tcp(DB)
        assert len(watched.source.links) == 2


async def test_a_destination_that_refuses(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        with pytest.raises(RefusedError):
            await transport.connect_tcp(REFUSED)
        assert transport.health().state is HealthState.READY


async def test_the_next_instance_takes_over(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        watched.source.broken = {"i-1": LinkFailedError("i-1 is not connected")}
        await transport.connect_tcp(DB)
        assert watched.source.asked[1:] == [("i-1", DB), ("i-2", PROBE_TARGET), ("i-2", DB)]
        assert transport.health().details[0] == ("via", "i-2")


async def test_bad_luck_with_one_destination_leaves_the_others(autojump_clock: MockClock) -> None:
    """A throttled StartSession says nothing about an instance that serves other connections."""
    watched = Watched()
    async with watched.open() as transport:
        await transport.connect_tcp(DB)
        watched.source.broken = {"i-1": LinkFailedError("AWS throttles StartSession")}
        with pytest.raises(TransportDownError, match="throttles"):
            await transport.connect_tcp(WEB)
        assert transport.health().state is HealthState.READY
        assert watched.source.open_now == 1


async def test_too_many_destinations(autojump_clock: MockClock) -> None:
    """Idle sessions make room; connections in use are never cut for new ones."""
    watched = Watched()
    async with watched.open() as transport:
        streams = [await transport.connect_tcp(Target.of("h", port)) for port in range(1, MOST_SESSIONS + 1)]
        with pytest.raises(TransportDownError, match="all 32 sessions are in use"):
            await transport.connect_tcp(DB)
        await streams[7].aclose()
        await transport.connect_tcp(DB)
        assert watched.source.open_now == MOST_SESSIONS


async def test_a_required_upstream_that_fails_says_why(autojump_clock: MockClock) -> None:
    watched = Watched(FakeSource(entries=("tag:a=b", "i-2")))
    watched.source.broken = {
        "tag:a=b": LinkFailedError("no running instance has it"),
        "i-2": LinkFailedError("agent too old", needs_person=True, exit_code=ExitCode.NOT_PERMITTED),
    }
    with pytest.raises(LinkFailedError) as caught:
        async with watched.open():
            raise AssertionError
    assert str(caught.value) == "tag:a=b: no running instance has it; i-2: agent too old"
    assert caught.value.exit_code is ExitCode.NOT_PERMITTED


async def test_it_goes_on_trying_in_the_background(autojump_clock: MockClock) -> None:
    watched = Watched(FakeSource(entries=("i-1",)))
    watched.source.broken = {"i-1": LinkFailedError("no answer")}
    async with watched.open(required=False) as transport:
        with pytest.raises(TransportDownError, match="i-1: no answer"):
            await transport.connect_tcp(DB)
        await trio.sleep(300)
        assert transport.health().state is HealthState.DOWN
        watched.source.broken = {}
        with trio.fail_after(7):
            await transport.wait_usable()
        await transport.connect_tcp(DB)


async def test_waiting_for_a_person_is_of_no_use(autojump_clock: MockClock) -> None:
    watched = Watched(FakeSource(entries=("i-1",)))
    watched.source.broken = {"i-1": LinkFailedError("access denied", needs_person=True)}
    async with watched.open(required=False) as transport:
        await trio.sleep(2)
        with pytest.raises(TransportDownError, match="access denied"):
            await transport.wait_usable()


async def test_a_session_that_takes_too_long(autojump_clock: MockClock) -> None:
    watched = Watched(FakeSource(entries=("i-1",)))
    async with watched.open() as transport:
        watched.source.setup = SETUP_LIMIT * 2
        with pytest.raises(TransportDownError, match="not connected within 30 s"):
            await transport.connect_tcp(DB)
        assert transport.health().state is HealthState.DOWN


async def test_an_unused_instance_is_proven_now_and_then(autojump_clock: MockClock) -> None:
    watched = Watched(FakeSource(entries=("i-1",)))
    async with watched.open() as transport:
        watched.source.broken = {"i-1": LinkFailedError("i-1 is not connected")}
        await trio.sleep(PROBE_INTERVAL + 2)
        assert transport.health().state is HealthState.DOWN
        assert transport.health().reason == "i-1: i-1 is not connected"


async def test_udp_is_not_carried(autojump_clock: MockClock) -> None:
    async with Watched().open(required=False) as transport:
        with pytest.raises(UdpUnsupportedError):
            await transport.open_udp()

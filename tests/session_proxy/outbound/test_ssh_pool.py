"""The pool over fake links, in virtual time."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from session_proxy.errors import (
    ExitCode,
    RefusedError,
    TransportDownError,
    UdpUnsupportedError,
)
from session_proxy.events import Event, LinksChanged, Notice, UpstreamDown, UpstreamUp
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.ssh_pool import AWAY_PATIENCE, SECOND_LOOK, SETUP_LIMIT, PoolTransport, open_pool
from session_proxy.outbound.transport import HealthState, ProvableTransport, Services
from session_proxy.policy.pool import GROWTH_PATIENCE
from session_proxy.target import Target
from tests.support.links import REFUSED, FakeLink, FakeStream

DB = Target.of("db.internal", 5432)


@attrs.define(eq=False)
class FakeSource:
    """Makes links in *setup* seconds; an instance in *broken* fails with its error instead."""

    entries: tuple[str, ...] = ("i-1", "i-2")
    setup: float = 1.0
    broken: dict[str, LinkFailedError] = attrs.field(factory=dict[str, LinkFailedError])
    tags: dict[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]])
    links: list[FakeLink] = attrs.field(factory=list[FakeLink])
    attempts: list[tuple[float, str]] = attrs.field(factory=list[tuple[float, str]])
    answers: bool = True
    ends_badly: bool = False
    closed: int = 0

    async def resolve(self, entry: str) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        if entry in self.broken and entry.startswith("tag:"):
            raise self.broken[entry]
        return self.tags.get(entry, (entry,))

    @asynccontextmanager
    async def connect(self, instance: str) -> AsyncGenerator[FakeLink, None]:
        self.attempts.append((round(trio.current_time() - self.began, 3), instance))
        await trio.sleep(self.setup)
        if instance in self.broken:
            raise self.broken[instance]
        link = FakeLink(instance, answers=self.answers)
        self.links.append(link)
        try:
            yield link
        finally:
            link.end(link.reason or "closed")
            self.closed += 1
        if self.ends_badly:
            raise LinkFailedError("it would not even close")

    began: float = attrs.field(factory=trio.current_time)


@attrs.define(eq=False)
class Watched:
    """A source and everything that was said about it."""

    source: FakeSource = attrs.field(factory=FakeSource)
    events: list[Event] = attrs.field(factory=list[Event])

    @asynccontextmanager
    async def open(self, *, sessions: int = 4, required: bool = True) -> AsyncGenerator[PoolTransport, None]:
        services = Services(notify=self.events.append, rng=random.Random(5))
        async with open_pool(
            "dev", self.source, sessions=sessions, required=required, services=services
        ) as transport:
            yield transport


async def test_a_stream_goes_over_the_first_link(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        stream = await transport.connect_tcp(DB)

        assert isinstance(stream, trio.abc.HalfCloseableStream)
        assert watched.source.links[0].streams == transport.streams() == 1
        health = transport.health()
        assert health.state is HealthState.READY
        assert health.details == (("via", "i-1"), ("links", "1"))
    assert watched.events[0] == UpstreamUp("dev", "i-1", 1.0)
    assert watched.source.closed == 1


async def test_a_long_rest_ends_where_something_has_changed(autojump_clock: MockClock) -> None:
    watched = Watched(FakeSource(("i-1",), broken={"i-1": LinkFailedError("no agent")}))
    async with watched.open(required=False) as transport:
        await trio.sleep(300)
        attempts = watched.source.attempts
        # The next attempt is far away, and the last one was made a while ago.
        before = len(attempts)
        while len(attempts) == before:  # noqa: ASYNC110  # virtual time
            await trio.sleep(1)
        await trio.sleep(10)
        assert len(attempts) == before + 1
        watched.source.broken.clear()
        transport.hurry()
        with trio.fail_after(2):
            while transport.health().state is not HealthState.READY:
                await transport.wait_changed()


async def test_in_the_background_it_yields_at_once_and_streams_wait(autojump_clock: MockClock) -> None:
    watched = Watched()
    began = trio.current_time()
    async with watched.open(required=False) as transport:
        assert trio.current_time() == began
        assert transport.health().state is HealthState.STARTING
        await transport.wait_usable()
        await transport.connect_tcp(DB)
        assert trio.current_time() - began == pytest.approx(1)


async def test_a_required_upstream_that_fails_says_why(autojump_clock: MockClock) -> None:
    """Every instance is tried once; the reasons of all of them are told."""
    watched = Watched()
    watched.source.broken = {
        "i-1": LinkFailedError("access denied", needs_person=True, exit_code=ExitCode.NOT_PERMITTED),
        "i-2": LinkFailedError("wrong key", needs_person=True, exit_code=ExitCode.NOT_PERMITTED),
    }
    with pytest.raises(LinkFailedError) as caught:
        async with watched.open():
            raise AssertionError
    assert str(caught.value) == "i-1: access denied; i-2: wrong key"
    assert caught.value.exit_code is ExitCode.NOT_PERMITTED


async def test_an_error_in_the_block_comes_out_plain(autojump_clock: MockClock) -> None:
    with pytest.raises(KeyError):
        async with Watched().open():
            raise KeyError


async def test_the_next_instance_is_tried_at_once(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.source.broken = {"i-1": LinkFailedError("no answer")}
    async with watched.open() as transport:
        assert watched.source.attempts == [(0.0, "i-1"), (1.0, "i-2")]
        assert transport.health().details[0] == ("via", "i-2")


async def test_a_tag_stands_for_its_instances(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.source.entries = ("tag:Role=bastion",)
    watched.source.tags = {"tag:Role=bastion": ("i-7", "i-8")}
    watched.source.broken = {"i-7": LinkFailedError("no answer")}
    async with watched.open():
        assert [instance for _, instance in watched.source.attempts] == ["i-7", "i-8"]


async def test_a_tag_that_nothing_has(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.source.entries = ("tag:Role=bastion",)
    watched.source.broken = {"tag:Role=bastion": LinkFailedError("no running instance has it")}
    with pytest.raises(LinkFailedError, match="tag:Role=bastion: no running instance has it"):
        async with watched.open():
            raise AssertionError


async def test_a_link_that_does_not_answer_the_probe_is_not_up(autojump_clock: MockClock) -> None:
    """READY is proven in band, not by the absence of errors."""
    watched = Watched()
    watched.source.answers = False
    watched.source.entries = ("i-1",)
    async with watched.open(required=False) as transport:
        await trio.sleep(SETUP_LIMIT + 0.5)
        health = transport.health()
        assert health.state is HealthState.DOWN
        assert health.reason == "i-1: not connected within 30 s"
        assert watched.source.closed == 1


async def test_streams_on_a_lost_link_are_reset_and_new_ones_wait(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        stream = await transport.connect_tcp(DB)
        await trio.sleep(60)
        lost_at = trio.current_time()
        watched.source.links[0].end("no answer for 30 s")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        health = transport.health()
        assert health.state is HealthState.STARTING
        assert health.reason == "connection to i-1 lost: no answer for 30 s"

        await transport.connect_tcp(DB)

        # The first retry came at once.
        assert trio.current_time() - lost_at == pytest.approx(1)
    assert UpstreamDown("dev", "i-1", "no answer for 30 s", 0.0) in watched.events


async def test_a_link_lost_while_a_stream_is_opened_is_replaced_under_it(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        watched.source.links[0].breaks_at_next_open = True
        await trio.sleep(60)

        await transport.connect_tcp(DB)

        assert [link.streams for link in watched.source.links] == [0, 1]


async def test_a_link_that_ends_badly_is_a_lost_link(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.source.ends_badly = True
    async with watched.open() as transport:
        await trio.sleep(60)
        watched.source.links[0].end("cut")
        await trio.testing.wait_all_tasks_blocked()
        await transport.connect_tcp(DB)
        assert [instance for _, instance in watched.source.attempts] == ["i-1", "i-1"]
        assert UpstreamDown("dev", "i-1", "cut", 0.0) in watched.events


async def test_a_refusal_leaves_the_link_alone(autojump_clock: MockClock) -> None:
    """What fails for one stream is no news about the upstream."""
    watched = Watched()
    async with watched.open() as transport:
        with pytest.raises(RefusedError):
            await transport.connect_tcp(REFUSED)
        assert transport.health().state is HealthState.READY
        assert len(watched.source.links) == 1


async def test_reconnecting_goes_on_for_ever_and_backs_off(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.source.entries = ("i-1",)
    async with watched.open() as transport:
        await trio.sleep(60)
        watched.source.broken = {"i-1": LinkFailedError("no answer")}
        watched.source.attempts.clear()
        watched.source.links[0].end("cut")
        await trio.sleep(600)
        assert transport.health().state is HealthState.DOWN
        times = [at for at, _ in watched.source.attempts]
        gaps = [later - earlier - 1 for earlier, later in itertools.pairwise(times)]
        assert times[0] == pytest.approx(61)
        assert 1 <= gaps[0] <= 2
        assert 2 <= gaps[1] <= 4
        assert all(30 <= gap <= 60 for gap in gaps[5:])

        watched.source.broken = {}
        await trio.sleep(61)
        assert transport.health().state is HealthState.READY


async def test_a_stream_fails_at_once_while_its_upstream_is_down(
    autojump_clock: MockClock,
) -> None:
    watched = Watched()
    watched.source.broken = {"i-1": LinkFailedError("no answer"), "i-2": LinkFailedError("no answer")}
    async with watched.open(required=False) as transport:
        began = trio.current_time()
        with pytest.raises(TransportDownError, match="i-1, i-2: no answer"):
            await transport.connect_tcp(DB)
        # It waited for the first attempts, and no longer.
        assert trio.current_time() - began == pytest.approx(2)
        with pytest.raises(TransportDownError):
            await transport.connect_tcp(DB)
        assert trio.current_time() - began == pytest.approx(2)


async def test_demand_brings_the_next_attempt_forward(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.source.entries = ("i-1",)
    watched.source.broken = {"i-1": LinkFailedError("no answer")}
    async with watched.open(required=False) as transport:
        await trio.sleep(300)
        watched.source.broken = {}
        with trio.fail_after(7):
            await transport.wait_usable()


async def test_waiting_for_a_person_is_of_no_use(autojump_clock: MockClock) -> None:
    watched = Watched()
    watched.source.entries = ("i-1",)
    watched.source.broken = {"i-1": LinkFailedError("access denied; allow it", needs_person=True)}
    async with watched.open(required=False) as transport:
        await trio.sleep(2)
        with pytest.raises(TransportDownError, match="access denied; allow it"):
            await transport.wait_usable()
        # Yet it is tried again, slowly.
        watched.source.broken = {}
        await trio.sleep(61)
        assert transport.health().state is HealthState.READY


async def test_it_grows_while_streams_queue_and_shrinks_when_idle(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open(sessions=3) as transport:
        streams = [await transport.connect_tcp(DB) for _ in range(5)]
        assert [link.streams for link in watched.source.links] == [2, 2, 1]
        assert [instance for _, instance in watched.source.attempts] == ["i-1"] * 3

        for stream in streams:
            await stream.aclose()
        await trio.sleep(120)
        assert transport.health().details[-1] == ("links", "1")
        assert watched.source.closed == 2
        assert not watched.source.links[0].ended.is_set()
    assert [event.links for event in watched.events if isinstance(event, LinksChanged)] == [1, 2, 3, 1]


async def connect_at_once(transport: PoolTransport, count: int) -> list[float]:
    """Open *count* streams at the same time; return how long each took."""
    began = trio.current_time()
    took: list[float] = []

    async def connect() -> None:
        await transport.connect_tcp(DB)
        took.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(connect)
    return took


@pytest.mark.parametrize(("count", "spread"), [(4, [1, 1, 1, 1]), (9, [3, 2, 2, 2])])
async def test_streams_that_start_together_are_spread(
    autojump_clock: MockClock, count: int, spread: list[int]
) -> None:
    watched = Watched()
    watched.source.setup = 0.8
    async with watched.open() as transport:
        took = await connect_at_once(transport, count)

        assert [link.streams for link in watched.source.links] == spread
        assert took == [0] * spread[0] + [pytest.approx(0.8)] * (count - spread[0])


async def test_no_stream_waits_long_for_growth(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        await transport.connect_tcp(DB)
        watched.source.links[0].flowing = True
        watched.source.setup = math.inf
        began = trio.current_time()
        await transport.connect_tcp(DB)
        assert trio.current_time() - began == pytest.approx(GROWTH_PATIENCE)

        began = trio.current_time()
        with trio.fail_after(1):
            await transport.connect_tcp(DB)
        assert trio.current_time() - began == pytest.approx(0.5)


async def test_who_waits_for_growth_takes_the_place_of_a_stream_that_ends(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        first = await transport.connect_tcp(DB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect_at_once, transport, 1)
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            await first.aclose()
        assert trio.current_time() - began == pytest.approx(SECOND_LOOK)
        assert watched.source.links[0].streams == 1


async def test_growth_that_fails_disturbs_nobody(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        watched.source.broken = {"i-1": LinkFailedError("AWS throttles StartSession")}
        began = trio.current_time()
        for _ in range(3):
            await transport.connect_tcp(DB)
        # One of them waited, until it was clear that nothing would come of it.
        assert trio.current_time() - began == pytest.approx(1)
        await trio.sleep(5)
        assert transport.health().state is HealthState.READY
        assert len(watched.source.attempts) == 2


async def test_a_link_in_use_outlives_its_sibling(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open(sessions=2) as transport:
        await transport.connect_tcp(DB)
        second = await transport.connect_tcp(DB)
        watched.source.links[0].end("cut")
        await trio.sleep(0.1)
        assert transport.health().state is HealthState.READY
        assert isinstance(second, FakeStream)
        assert not second.link.ended.is_set()
        assert await transport.connect_tcp(DB) in watched.source.links[1].open_streams


async def test_new_streams_leave_a_link_alone_that_is_away(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open(sessions=2) as transport:
        for _ in range(2):
            await transport.connect_tcp(DB)
        first, second = watched.source.links
        first.go_away("resuming the session: cut")
        await trio.sleep(10)
        for _ in range(2):
            await transport.connect_tcp(DB)
        assert (first.streams, second.streams) == (1, 3)
        assert transport.health().sure


async def test_an_upstream_whose_links_are_all_away_is_in_doubt_and_then_not_ready(
    autojump_clock: MockClock,
) -> None:
    watched = Watched()
    async with watched.open() as transport, trio.open_nursery() as nursery:
        stream = await transport.connect_tcp(DB)
        link = watched.source.links[0]
        link.go_away("resuming the session: cut")
        await trio.sleep(AWAY_PATIENCE / 2)
        health = transport.health()
        assert (health.state, health.reason, health.sure) == (
            HealthState.READY,
            "resuming the session: cut",
            False,
        )
        nursery.start_soon(transport.connect_tcp, DB)
        link.go_away("resuming the session: no route")
        await trio.sleep(AWAY_PATIENCE * 0.6)
        health = transport.health()
        assert (health.state, health.reason) == (HealthState.STARTING, "resuming the session: no route")
        # Who wants a stream waits, and the streams that there were are whole.
        await trio.sleep(30)
        assert link.open_streams == {stream}
        link.go_away("")
        await trio.testing.wait_all_tasks_blocked()
        assert transport.health().sure
        assert link.streams == 2
    notices = [(event.message, event.level) for event in watched.events if isinstance(event, Notice)]
    assert notices == [("resuming the session: no route", "warning"), ("the session goes on", "info")]


async def test_a_short_absence_is_nobodys_news(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        link = watched.source.links[0]
        for _ in range(3):
            link.go_away("resuming the session: closed by the service")
            await trio.sleep(AWAY_PATIENCE * 0.9)
            assert transport.health().state is HealthState.READY
            link.go_away("")
            await trio.sleep(0.1)
    assert not [event for event in watched.events if isinstance(event, Notice)]


async def test_a_link_that_ends_while_it_is_away_is_replaced(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        await trio.sleep(60)
        watched.source.links[0].go_away("resuming the session: cut")
        await trio.sleep(60)
        watched.source.links[0].end("not resumed within 60 s")
        await transport.connect_tcp(DB)
        assert transport.health().sure


async def test_udp_is_not_carried(autojump_clock: MockClock) -> None:
    async with Watched().open(required=False) as transport:
        with pytest.raises(UdpUnsupportedError):
            await transport.open_udp()


@pytest.mark.parametrize("checkpoint", range(6))
async def test_cancelled_at_any_time_it_leaves_nothing(autojump_clock: MockClock, checkpoint: int) -> None:
    watched = Watched()
    with trio.move_on_after(0.4 * checkpoint):
        async with watched.open() as transport:
            await transport.connect_tcp(DB)
            await trio.sleep_forever()
    assert watched.source.closed == len(watched.source.links)


async def test_links_that_are_there_say_so_when_asked(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        assert isinstance(transport, ProvableTransport)
        link = watched.source.links[0]
        await transport.prove()
        link.answers = False
        with trio.move_on_after(5) as waiting:
            await transport.prove()
        assert waiting.cancelled_caught

        # What arrives is a sign of life, before which the answer may have to wait.
        link.flowing = True
        await transport.prove()
        link.flowing, link.away = False, "cut"
        await transport.prove()


async def test_a_link_that_ends_when_it_is_asked_says_enough(autojump_clock: MockClock) -> None:
    watched = Watched()
    async with watched.open() as transport:
        watched.source.links[0].lost_at_next_probe = True
        with trio.fail_after(1):
            await transport.prove()

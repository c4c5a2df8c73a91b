"""Requests that are made whatever happens on their way; in virtual time, but for what files do."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tunnel_relay.client import forwarding as module
from tunnel_relay.client.forwarding import (
    AT_A_TIME,
    ELSEWHERE,
    EXPIRED,
    PAUSE,
    SENT_KEPT,
    AnsweredLate,
    Forwarding,
    ForwardingEvent,
    Pressure,
    UnknownOutcome,
    open_forwarding,
)
from tunnel_relay.client.outbox_store import Kept, OutboxStore, Sent, open_outbox_store
from tunnel_relay.errors import OutboxFullError, RequestLostError, StoreError
from tunnel_relay.policy.outbox import OutboxSettings, Priority
from tunnel_relay.protocol.requests import Request, Response, Status

NOW = 1e9


def request(name: str = "id", payload: bytes = b"hello") -> Request:
    return Request(id=name, target="db", payload=payload)


def done(name: str = "id") -> Response:
    return Response(id=name, status=Status.DONE)


@attrs.define(eq=False)
class Way:
    """A way whose far end answers when it is told to."""

    record: str = "record"
    ready: trio.Event = attrs.field(factory=trio.Event)
    asked: list[str] = attrs.field(factory=list[str])
    # What comes of a request, one time after the other: a status, or a session that ends.
    fates: dict[str, list[Status | None]] = attrs.field(factory=dict[str, "list[Status | None]"])
    # When.
    held: dict[str, trio.Event] = attrs.field(factory=dict[str, trio.Event])

    async def wait_ready(self) -> Way:
        await self.ready.wait()
        return self

    async def ask(self, request: Request) -> Response:
        self.asked.append(request.id)
        await trio.lowlevel.checkpoint()
        if request.id in self.held:
            await self.held[request.id].wait()
        fate = self.fates.get(request.id, [Status.DONE]).pop(0)
        if fate is None:
            raise RequestLostError("the session ended")
        return Response(id=request.id, status=fate)


@attrs.define
class Clock:
    """What tells the time of day; it goes on while the machine sleeps."""

    now: float


@attrs.define(eq=False)
class World:
    """A client's requests, and what they meet."""

    way: Way
    forwarding: Forwarding
    events: list[ForwardingEvent]
    heard: trio.Semaphore
    clock: Clock

    async def event(self) -> ForwardingEvent:
        """Return the next event that is no pressure."""
        while True:
            await self.heard.acquire()
            event = self.events.pop(0)
            if not isinstance(event, Pressure):
                return event


@asynccontextmanager
async def open_world(
    settings: OutboxSettings | None = None,
    store: OutboxStore | None = None,
    *,
    ready: bool = True,
    now: float = NOW,
) -> AsyncGenerator[World]:
    events: list[ForwardingEvent] = []
    heard = trio.Semaphore(0)
    way = Way()

    def notify(event: ForwardingEvent) -> None:
        events.append(event)
        heard.release()

    if ready:
        way.ready.set()
    clock = Clock(now)
    async with open_forwarding(
        way, settings=settings or OutboxSettings(), store=store, notify=notify, clock=lambda: clock.now
    ) as forwarding:
        yield World(way, forwarding, events, heard, clock)


async def test_a_request_is_answered(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        assert await world.forwarding.forward(request()) == done()
        assert len(world.forwarding) == 0


async def test_what_waits_for_a_way_goes_by_priority_once_there_is_one(autojump_clock: MockClock) -> None:
    async with open_world(ready=False) as world, trio.open_nursery() as nursery:
        for name, priority in (("low", Priority.LOW), ("normal", Priority.NORMAL), ("high", Priority.HIGH)):
            nursery.start_soon(world.forwarding.forward, request(name), priority)
            await wait_all_tasks_blocked()
        assert world.way.asked == []
        world.way.ready.set()
        await wait_all_tasks_blocked()
        assert world.way.asked == ["high", "normal", "low"]


@pytest.mark.parametrize("fate", [None, Status.BUSY])
async def test_what_could_not_be_done_is_asked_again(autojump_clock: MockClock, fate: Status | None) -> None:
    async with open_world() as world:
        world.way.fates["id"] = [fate, fate, Status.DONE]
        began = trio.current_time()
        assert await world.forwarding.forward(request()) == done()
        assert world.way.asked == ["id"] * 3
        assert trio.current_time() - began == pytest.approx(2 * PAUSE)


async def test_so_many_are_asked_at_a_time_and_the_urgent_is_the_next(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        slow = [f"slow-{number}" for number in range(AT_A_TIME + 1)]
        for name in slow:
            world.way.held[name] = trio.Event()
            nursery.start_soon(world.forwarding.forward, request(name))
            await wait_all_tasks_blocked()
        nursery.start_soon(world.forwarding.forward, request("high"), Priority.HIGH)
        await wait_all_tasks_blocked()
        assert world.way.asked == slow[:-1]
        world.way.held[slow[0]].set()
        await wait_all_tasks_blocked()
        assert world.way.asked[AT_A_TIME:] == ["high", slow[-1]]
        nursery.cancel_scope.cancel()


async def test_who_makes_too_many_requests_is_warned_and_then_refused(autojump_clock: MockClock) -> None:
    async with open_world(OutboxSettings(items=5), ready=False) as world:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                assert world.forwarding.pressed is (number >= 4)
                nursery.start_soon(world.forwarding.forward, request(str(number)))
                await wait_all_tasks_blocked()
            with pytest.raises(OutboxFullError):
                await world.forwarding.forward(request("more"))
            world.way.ready.set()
        assert world.events == [Pressure(True), Pressure(False)]


async def test_a_request_that_nobody_waits_for_any_more_is_not_made(autojump_clock: MockClock) -> None:
    async with open_world(ready=False) as world:
        with trio.move_on_after(1):
            await world.forwarding.forward(request("given-up"))
        assert len(world.forwarding) == 0
        world.way.ready.set()
        await world.forwarding.forward(request())
        assert world.way.asked == ["id"]


async def test_what_was_sent_is_not_sent_to_whoever_has_another_record(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        world.way.fates["id"] = [None]

        async def forward() -> None:
            with pytest.raises(RequestLostError, match="it was sent to another agent"):
                await world.forwarding.forward(request())

        nursery.start_soon(forward)
        await wait_all_tasks_blocked()
        world.way.record = "another"
    assert world.way.asked == ["id"]


async def test_where_nothing_was_done_another_may_do_it(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        world.way.fates["id"] = [Status.BUSY, Status.DONE]
        told: list[bool] = []
        nursery.start_soon(partial(world.forwarding.forward, request(), sent=told.append))
        await wait_all_tasks_blocked()
        assert told == [True, False]
        world.way.record = "another"
    assert world.way.asked == ["id"] * 2
    assert told == [True, False, True]


async def test_who_was_busy_may_have_done_it_before(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        world.way.fates["id"] = [None, Status.BUSY]

        async def forward() -> None:
            with pytest.raises(RequestLostError, match="it was sent to another agent"):
                await world.forwarding.forward(request())

        nursery.start_soon(forward)
        await wait_all_tasks_blocked()
        await trio.sleep(1.5 * PAUSE)
        world.way.record = "another"
    assert world.way.asked == ["id"] * 2


async def test_several_may_wait_until_there_is_no_request(autojump_clock: MockClock) -> None:
    async with open_world(ready=False) as world:
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.forwarding.forward, request())
                await wait_all_tasks_blocked()
                for _ in range(2):
                    nursery.start_soon(world.forwarding.wait_empty)
                    await wait_all_tasks_blocked()
                world.way.ready.set()


async def test_one_that_was_sent_a_day_ago_is_not_sent_again(autojump_clock: MockClock) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        world.way.fates["id"] = [None]

        async def forward() -> None:
            with pytest.raises(RequestLostError, match="it was sent a day ago"):
                await world.forwarding.forward(request())

        nursery.start_soon(forward)
        await wait_all_tasks_blocked()
        world.way.ready = trio.Event()
        world.clock.now += SENT_KEPT + 1
        world.way.ready.set()
    assert world.way.asked == ["id"]


async def test_the_urgent_is_in_the_file_until_it_is_answered(tmp_path: Path) -> None:
    async with open_outbox_store(tmp_path / "outbox.db") as store, open_world(store=store) as world:
        world.way.held["id"] = trio.Event()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.forwarding.forward, request(), Priority.HIGH)
                nursery.start_soon(world.forwarding.forward, request("normal"))
                while "id" not in world.way.asked:
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert await store.restore() == [Kept(request(), Sent(NOW, "record"))]
        assert len(world.forwarding) == 1
        world.way.held["id"].set()
        assert await world.event() == AnsweredLate(request(), done())
        assert len(world.forwarding) == 0
        assert await store.restore() == []


async def test_the_urgent_outlives_the_program(tmp_path: Path) -> None:
    async with open_outbox_store(tmp_path / "outbox.db") as store, open_world(store=store) as world:
        world.way.held["id"] = trio.Event()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.forwarding.forward, request(), Priority.HIGH)
                while "id" not in world.way.asked:
                    await trio.lowlevel.checkpoint()
                scope.cancel()
    async with open_outbox_store(tmp_path / "outbox.db") as store, open_world(store=store) as world:
        assert await world.event() == AnsweredLate(request(), done())
        assert await store.restore() == []
        assert await world.forwarding.forward(request("next"), Priority.HIGH) == done("next")
        assert await store.restore() == []


async def test_there_is_no_request_once_the_last_is_forgotten_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_outbox_store(tmp_path / "outbox.db") as store:
        await store.keep(request())
        forget = store.forget
        forgetting, may_forget = trio.Event(), trio.Event()

        async def forget_later(identity: str) -> None:
            forgetting.set()
            await may_forget.wait()
            await forget(identity)

        monkeypatch.setattr(OutboxStore, "forget", lambda _store, identity: forget_later(identity))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        async with open_world(store=store) as world, trio.open_nursery() as nursery:
            nursery.start_soon(world.forwarding.wait_empty)
            await forgetting.wait()
            assert len(world.forwarding) == 1
            may_forget.set()
            await world.forwarding.wait_empty()
            assert world.events == [AnsweredLate(request(), done())]
            assert await store.restore() == []


async def test_what_has_expired_is_told_at_the_next_start(tmp_path: Path) -> None:
    async with open_outbox_store(tmp_path / "outbox.db") as store:
        await store.keep(request())
        await store.mark_sent("id", Sent(NOW - SENT_KEPT - 1, "record"))
        async with open_world(store=store, ready=False) as world:
            assert await world.event() == UnknownOutcome("id", EXPIRED)
            assert len(world.forwarding) == 0
        assert await store.restore() == []


async def test_to_which_record_it_was_sent_outlives_the_program(tmp_path: Path) -> None:
    async with open_outbox_store(tmp_path / "outbox.db") as store:
        await store.keep(request())
        await store.mark_sent("id", Sent(NOW, "another"))
        async with open_world(store=store) as world:
            assert await world.event() == UnknownOutcome("id", ELSEWHERE)
            assert world.way.asked == []
        assert await store.restore() == []


async def test_what_was_certainly_not_done_is_not_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    async with open_outbox_store(tmp_path / "outbox.db") as store, open_world(store=store) as world:
        world.way.fates["id"] = [Status.BUSY, Status.DONE]
        mark_unsent = store.mark_unsent

        async def move_on(identity: str) -> None:
            await mark_unsent(identity)
            assert await store.restore() == [Kept(request())]
            world.way.record = "another"

        monkeypatch.setattr(OutboxStore, "mark_unsent", lambda _store, identity: move_on(identity))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        assert await world.forwarding.forward(request(), Priority.HIGH) == done()
        assert world.way.asked == ["id"] * 2


async def test_a_start_does_not_prolong_the_time_for_sending_again(tmp_path: Path) -> None:
    async with open_outbox_store(tmp_path / "outbox.db") as store:
        await store.keep(request())
        await store.mark_sent("id", Sent(NOW - SENT_KEPT, "record"))
        async with open_world(store=store, ready=False) as world:
            assert len(world.forwarding) == 1
            world.clock.now += 1
            world.way.ready.set()
            assert await world.event() == UnknownOutcome("id", EXPIRED)
            assert world.way.asked == []
        assert await store.restore() == []


def pages(most: int) -> Callable[[sqlite3.Connection], None]:
    """Return what lets a file grow no longer than that, or than it is."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {most}")

    return work


async def test_a_full_disk_is_told_to_whoever_asks(tmp_path: Path) -> None:
    async with open_outbox_store(tmp_path / "outbox.db") as store, open_world(store=store) as world:
        await store._database.read(pages(1))
        long = request(payload=bytes(100_000))
        with pytest.raises(StoreError, match="database or disk is full"):
            await world.forwarding.forward(long, Priority.HIGH)
        assert len(world.forwarding) == 0
        assert world.way.asked == []
        assert await world.forwarding.forward(long) == done()


@pytest.mark.parametrize("earlier", [False, True])
async def test_what_was_written_while_others_took_the_room_is_kept_only_where_it_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    async with (
        open_outbox_store(tmp_path / "outbox.db") as store,
        open_world(OutboxSettings(items=1), store, ready=False) as world,
        trio.open_nursery() as nursery,
    ):
        if earlier:
            await store.keep(request())
        keep = store.keep

        async def keep_slowly(request_: Request) -> Kept | None:
            nursery.start_soon(world.forwarding.forward, request("quick"))
            await wait_all_tasks_blocked()
            return await keep(request_)

        monkeypatch.setattr(OutboxStore, "keep", lambda _store, request_: keep_slowly(request_))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        with pytest.raises(OutboxFullError):
            await world.forwarding.forward(request(), Priority.HIGH)
        assert await store.restore() == ([Kept(request())] if earlier else [])
        nursery.cancel_scope.cancel()


async def test_who_asks_again_for_what_was_sent_does_not_prolong_its_time(tmp_path: Path) -> None:
    async with open_outbox_store(tmp_path / "outbox.db") as store, open_world(store=store) as world:
        await store.keep(request())
        await store.mark_sent("id", Sent(NOW - SENT_KEPT - 1, "record"))
        with pytest.raises(RequestLostError, match="it was sent a day ago"):
            await world.forwarding.forward(request(), Priority.HIGH)
        assert world.way.asked == []


async def test_what_cannot_be_marked_as_sent_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    async with open_outbox_store(tmp_path / "outbox.db") as store, open_world(store=store) as world:
        mark_sent = store.mark_sent
        tries = 0

        async def fail_twice(identity: str, sent: Sent) -> None:
            nonlocal tries
            tries += 1
            assert world.way.asked == []
            if tries < 3:
                raise StoreError("the disk is full")
            await mark_sent(identity, sent)

        monkeypatch.setattr(OutboxStore, "mark_sent", lambda _store, *args: fail_twice(*args))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        assert await world.forwarding.forward(request(), Priority.HIGH) == done()
        assert tries == 3

"""What is done once."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tunnel_relay.protocol.requests import Request, Response, Status
from tunnel_relay.record import Outcome, Record, RecordSettings, open_record

DAY = 24 * 3600.0


def request(name: str = "id", payload: bytes = b"hello", most: int = 1000) -> Request:
    return Request(id=name, target="db", payload=payload, most=most)


def answer(name: str = "id", payload: bytes = b"answer", status: Status = Status.DONE) -> Response:
    return Response(id=name, status=status, payload=payload, detail="" if status is Status.DONE else "why")


@attrs.define(eq=False)
class Target:
    """Counts what is done to it."""

    status: Status = Status.DONE
    acted: bool = True
    done: list[str] = attrs.field(factory=list[str])
    go: trio.Event = attrs.field(factory=trio.Event)
    begun: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(0))

    async def act(self, request: Request) -> Outcome:
        self.done.append(request.id)
        self.begun.release()
        await self.go.wait()
        return Outcome(answer(request.id, bytes(request.payload[::-1]), self.status), self.acted)


@attrs.define(eq=False)
class World:
    """A record, a target, and the time."""

    record: Record
    target: Target
    now: float

    async def once(self, name: str = "id", payload: bytes = b"hello", *, owner: str = "alice") -> Response:
        return await self.record.once(owner, request(name, payload, max(1000, len(payload))), self.target.act)

    async def look(self, question: str) -> list[tuple[object, ...]]:
        def work(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
            return connection.execute(question).fetchall()

        return await self.record._database.read(work)


@asynccontextmanager
async def open_world(
    path: Path, settings: RecordSettings | None = None, now: float = 1e9
) -> AsyncGenerator[World]:
    target = Target()
    target.go.set()
    async with open_record(path / "record.db", settings or RecordSettings(), lambda: world.now) as record:
        world = World(record, target, now)
        yield world


async def test_a_request_is_done_once(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        for _ in range(3):
            assert await world.once() == answer(payload=b"olleh")
        assert world.target.done == ["id"]
        assert stat.S_IMODE((tmp_path / "record.db").stat().st_mode) == 0o600
    async with open_world(tmp_path) as world:
        assert await world.once() == answer(payload=b"olleh")
        assert world.target.done == []


async def test_a_record_is_told_from_others_and_known_again(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with open_world(tmp_path) as world, open_world(tmp_path / "other") as other:
        identity = world.record.id
        assert len(identity) == 32
        assert other.record.id != identity
    async with open_world(tmp_path) as world:
        assert world.record.id == identity


async def test_many_at_a_time_are_done_and_recorded_once(tmp_path: Path) -> None:
    names = {f"id-{number}" for number in range(50)}
    async with open_world(tmp_path) as world, trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(world.once, name)
            nursery.start_soon(world.once, name)
    async with open_world(tmp_path) as again:
        for name in names:
            assert await again.once(name) == answer(name, b"olleh")
        assert again.target.done == []
    assert sorted(world.target.done) == sorted(names)


async def test_a_request_is_known_though_others_have_been_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered in memory is read anew now and then, also while requests are being done."""
    monkeypatch.setattr("tunnel_relay.record.SURPLUS", 3)
    async with open_world(tmp_path, RecordSettings(entries=8)) as world:
        for number in range(40):
            async with trio.open_nursery() as nursery:
                for name in (f"id-{number}", f"id-{max(number - 1, 0)}", f"other-{number}"):
                    nursery.start_soon(world.once, name)
        assert sorted(world.target.done) == sorted(
            f"{kind}-{number}" for kind in ("id", "other") for number in range(40)
        )
        assert len(world.record._maybe) <= 8 + 3 + 3


async def test_ids_belong_to_their_owners(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        await world.once(owner="alice")
        await world.once(owner="bob")
        assert world.target.done == ["id", "id"]


async def test_another_request_with_the_same_id_is_not_done(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        await world.once()
        assert (await world.once(payload=b"something else")).status is Status.MISUSED
        elsewhere = Request(id="id", target="another", payload=b"hello")
        assert (await world.record.once("alice", elsewhere, world.target.act)).status is Status.MISUSED
        assert world.target.done == ["id"]


@pytest.mark.parametrize("status", [Status.BROKEN, Status.TIMED_OUT])
async def test_what_the_target_may_have_noticed_is_not_tried_again(tmp_path: Path, status: Status) -> None:
    async with open_world(tmp_path) as world:
        world.target.status = status
        for _ in range(2):
            assert await world.once() == answer(payload=b"olleh", status=status)
        assert world.target.done == ["id"]


async def test_what_never_reached_the_target_may_be(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        world.target.status, world.target.acted = Status.REFUSED, False
        assert (await world.once()).status is Status.REFUSED
        world.target.status, world.target.acted = Status.DONE, True
        assert (await world.once()).status is Status.DONE
        assert world.target.done == ["id", "id"]


async def test_who_repeats_a_request_that_is_being_done_waits_for_it(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        world.target.go = trio.Event()
        responses: list[Response] = []

        async def ask(payload: bytes = b"hello") -> None:
            responses.append(await world.once(payload=payload))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await world.target.begun.acquire()
            nursery.start_soon(ask, b"something else")
            await wait_all_tasks_blocked()
            assert responses == []
            world.target.go.set()
        assert [response.status for response in responses].count(Status.MISUSED) == 1
        assert responses.count(answer(payload=b"olleh")) == 3
        assert world.target.done == ["id"]


async def test_where_the_first_is_cancelled_the_next_does_it(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        world.target.go = trio.Event()
        async with trio.open_nursery() as others:
            async with trio.open_nursery() as first:
                first.start_soon(world.once)
                await world.target.begun.acquire()
                others.start_soon(world.once)
                others.start_soon(world.once)
                await wait_all_tasks_blocked()
                first.cancel_scope.cancel()
            await world.target.begun.acquire()
            world.target.go.set()
        assert world.target.done == ["id", "id"]


async def test_what_was_done_is_recorded_though_nobody_waits_for_it(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:

        async def act_and_be_cancelled(request: Request) -> Outcome:
            outcome = await world.target.act(request)
            scope.cancel()
            return outcome

        with trio.CancelScope() as scope:
            await world.record.once("alice", request(), act_and_be_cancelled)
        assert world.target.done == ["id"]
    async with open_world(tmp_path) as world:
        assert await world.once() == answer(payload=b"olleh")
        assert world.target.done == []


async def test_a_day_later_it_is_forgotten(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        await world.once()
        await world.once("later")
        world.now += DAY - 1
        await world.once()
        assert world.target.done == ["id", "later"]
        world.now += 1
        await world.once()
        assert world.target.done == ["id", "later", "id"]
        assert await world.look("SELECT id FROM done") == [("id",)]
        assert await world.look("SELECT * FROM totals") == [("alice", 1, 5)]


async def test_where_answers_take_too_much_room_the_oldest_are_dropped(tmp_path: Path) -> None:
    async with open_world(tmp_path, RecordSettings(owner_bytes=10, bytes=25)) as world:
        for name in ("one", "two", "empty", "three"):
            world.now += 1
            await world.once(name, b"" if name == "empty" else b"hello")
        response = await world.once("one")
        assert (response.status, response.payload) == (Status.FORGOTTEN, b"")
        assert response.detail == "it was done before (DONE), and what was said is not kept any more"
        for name in ("two", "three"):
            assert (await world.once(name)).status is Status.DONE
        assert (await world.once("empty", b"")).status is Status.DONE
        assert world.target.done == ["one", "two", "empty", "three"]
        for owner in ("bob", "carol"):
            world.now += 1
            await world.once("one", bytes(10), owner=owner)
        assert (await world.once("two")).status is Status.FORGOTTEN
        assert (await world.once("three")).status is Status.DONE
        assert await world.look("SELECT * FROM totals ORDER BY owner") == [
            ("alice", 4, 5),
            ("bob", 1, 10),
            ("carol", 1, 10),
        ]


async def test_past_so_many_the_oldest_are_forgotten(tmp_path: Path) -> None:
    async with open_world(tmp_path, RecordSettings(owner_entries=2, entries=3)) as world:
        for owner in ("alice", "bob"):
            for name in ("one", "two", "three"):
                world.now += 1
                await world.once(name, owner=owner)
        assert await world.look("SELECT owner, id FROM done ORDER BY at") == [
            ("alice", "three"),
            ("bob", "two"),
            ("bob", "three"),
        ]
        assert await world.look("SELECT * FROM totals ORDER BY owner") == [("alice", 1, 5), ("bob", 2, 10)]


async def test_a_repeat_gets_no_more_than_it_allows(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        await world.once()
        response = await world.record.once("alice", request(most=2), world.target.act)
        assert response == Response(id="id", status=Status.TOO_LONG, payload=b"ol")


async def limit(world: World, pages: int) -> None:
    """Let the file grow no longer than that, or than it is."""
    await world.look(f"PRAGMA max_page_count = {pages}")


async def test_what_cannot_be_recorded_is_not_done_twice_and_nothing_else_is_done(tmp_path: Path) -> None:
    long = b"hello" * 20_000
    async with open_world(tmp_path) as world:
        await limit(world, 1)
        assert (await world.once("long", long)).payload == long[::-1]
        assert world.record.problem is not None
        assert (await world.once("long", long)).payload == long[::-1]
        assert (await world.once("long")).status is Status.MISUSED
        refused = await world.once("another")
        assert refused.status is Status.FAILED
        assert "database or disk is full" in refused.detail
        assert world.target.done == ["long"]
        await limit(world, 1_000_000)
        assert (await world.once("another")).status is Status.DONE
        assert world.record.problem is None
    async with open_world(tmp_path) as world:
        assert (await world.once("long", long)).payload == long[::-1]
        assert world.target.done == []

"""Files of SQLite: who may read them, and what a full disk does."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tunnel_relay.database import Database, open_database
from tunnel_relay.errors import StoreError

TABLES = ("CREATE TABLE things (name TEXT PRIMARY KEY, data BLOB)",)


def add(name: str, size: int = 0) -> Callable[[sqlite3.Connection], None]:
    """Return work that adds a thing."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO things VALUES (?, ?)", (name, bytes(size)))

    return work


def names(connection: sqlite3.Connection) -> list[str]:
    return [str(name) for (name,) in connection.execute("SELECT name FROM things ORDER BY name")]


def modes(folder: Path) -> list[int]:
    return [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()]


async def fill_up(database: Database) -> None:
    """Let there be no more room than there is now."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    await database.read(work)


async def test_what_was_written_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "things.db"
    async with open_database(path, 1, TABLES) as database:
        await database.write(add("one"))
    async with open_database(path, 1, TABLES) as database:
        assert await database.read(names) == ["one"]


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    path.touch(mode=0o644)
    async with open_database(path, 1, TABLES) as database:
        await database.write(add("one"))
        assert modes(tmp_path) == [0o600] * 3


async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "things.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"things\.db: "):
        async with open_database(tmp_path / "things.db", 1, TABLES):
            pass


async def test_a_full_disk_is_an_error_and_nothing_is_half_done(tmp_path: Path) -> None:
    async with open_database(tmp_path / "things.db", 1, TABLES) as database:
        await database.write(add("one"))
        await fill_up(database)

        def both(connection: sqlite3.Connection) -> None:
            add("small")(connection)
            add("large", 100_000)(connection)

        with pytest.raises(StoreError, match=r"things\.db: database or disk is full"):
            await database.write(both)
        assert await database.read(names) == ["one"]
        await database.write(add("small"))
        assert await database.read(names) == ["one", "small"]


async def test_a_file_of_another_version_or_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    async with open_database(path, 2, TABLES):
        pass
    with pytest.raises(StoreError, match="is of version 2, and this program knows 1: move it away"):
        async with open_database(path, 1, TABLES):
            pass
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        async with open_database(path, 1, TABLES):
            pass
    assert path.read_bytes().startswith(b"this is no database")


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"things\.db: "):
        async with open_database(tmp_path / "file" / "things.db", 1, TABLES):
            pass


async def test_work_that_was_begun_is_finished_before_the_file_is_closed(tmp_path: Path) -> None:
    go = threading.Event()
    path = tmp_path / "things.db"
    async with open_database(path, 1, TABLES) as database, trio.open_nursery() as nursery:

        def slow(connection: sqlite3.Connection) -> None:
            assert go.wait(60)
            add("slow")(connection)

        nursery.start_soon(database.write, slow)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        go.set()
    async with open_database(path, 1, TABLES) as database:
        assert await database.read(names) == ["slow"]


@asynccontextmanager
async def held_up(database: Database) -> AsyncGenerator[None]:
    """Let what is to be written wait for the length of the block."""
    go = threading.Event()

    def wait(connection: sqlite3.Connection) -> None:
        del connection
        assert go.wait(60)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write, wait)
        await wait_all_tasks_blocked()
        yield
        await wait_all_tasks_blocked()
        go.set()


async def test_what_comes_while_the_disk_is_busy_goes_there_together(tmp_path: Path) -> None:
    async with open_database(tmp_path / "things.db", 1, TABLES) as database, trio.open_nursery() as nursery:
        statements: list[str] = []
        async with held_up(database):
            for name in ("one", "two", "three"):
                nursery.start_soon(database.write, add(name))
            database._connection.set_trace_callback(statements.append)
        await database.write(add("four"))
        assert await database.read(names) == ["four", "one", "three", "two"]
        # What held it up, the three, and the last, where that has not come in time to go with them.
        assert statements.count("COMMIT") <= 3


async def test_one_that_cannot_be_written_keeps_no_other_from_it(tmp_path: Path) -> None:
    async with open_database(tmp_path / "things.db", 1, TABLES) as database, trio.open_nursery() as nursery:
        failures: list[str] = []

        async def write(name: str) -> None:
            try:
                await database.write(add(name))
            except StoreError as exc:
                failures.append(str(exc))

        async with held_up(database):
            for name in ("one", "one", "two"):
                nursery.start_soon(write, name)
        await database.write(add("three"))
        assert await database.read(names) == ["one", "three", "two"]
        assert len(failures) == 1
        assert "UNIQUE constraint failed" in failures[0]


@pytest.mark.parametrize("given_up", ["one", "two"])
async def test_one_that_is_given_up_while_it_waits_is_not_written_and_holds_up_none(
    tmp_path: Path, given_up: str
) -> None:
    async with open_database(tmp_path / "things.db", 1, TABLES) as database, trio.open_nursery() as nursery:
        scopes = {name: trio.CancelScope() for name in ("one", "two", "three")}

        async def write(name: str) -> None:
            with scopes[name]:
                await database.write(add(name))

        async with held_up(database):
            for name in scopes:
                nursery.start_soon(write, name)
                await wait_all_tasks_blocked()
            scopes[given_up].cancel()
        await database.write(add("four"))
        assert await database.read(names) == sorted({"one", "two", "three", "four"} - {given_up})


async def test_one_whose_turn_it_is_when_it_is_given_up_lets_the_next_write(tmp_path: Path) -> None:
    async with open_database(tmp_path / "things.db", 1, TABLES) as database, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def write_and_give_the_other_up() -> None:
            await database.write(add("first"))

        async def write() -> None:
            with scope:
                await database.write(add("given up"))

        database._writing = True
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        nursery.start_soon(write_and_give_the_other_up)
        await wait_all_tasks_blocked()
        # In one go, as where somebody cancels it in the moment that the others have ended.
        scope.cancel()
        database._pass_on()
        await wait_all_tasks_blocked()
        await database.write(add("last"))
        assert await database.read(names) == ["first", "last"]

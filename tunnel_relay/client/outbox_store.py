"""Requests that wait, in a file: those of high priority outlive the program that accepted them.

A request that was sent may have been done, and only its far end's record keeps it from being done again. So the file
tells those that were sent, and when, from those that were not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from tunnel_relay.database import Database, open_database
from tunnel_relay.protocol.requests import Request

VERSION = 1
TABLES = (
    """
    CREATE TABLE requests (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        target TEXT NOT NULL,
        payload BLOB NOT NULL,
        most INTEGER NOT NULL,
        time REAL NOT NULL,
        sent_at REAL
    )
    """,
)
ALL = "SELECT id, target, payload, most, time, sent_at FROM requests ORDER BY position"
ONE = "SELECT id, target, payload, most, time, sent_at FROM requests WHERE id = ?"


@attrs.frozen
class Kept:
    """A request in the file; *sent_at* is the time of day when it was first sent, None where it never was."""

    request: Request
    sent_at: float | None = None


@attrs.define(eq=False)
class OutboxStore:
    """The file."""

    _database: Database

    async def keep(self, request: Request) -> Kept | None:
        """Write *request* to the disk; one with its id that is there already stays, and is returned.

        Raises:
          StoreError: that cannot be done: the request is not kept.

        """
        row = (request.id, request.target, request.payload, request.most, request.time)

        def work(connection: sqlite3.Connection) -> Kept | None:
            found = connection.execute(ONE, (request.id,)).fetchone()
            if found is not None:
                return _kept(found)
            connection.execute(
                "INSERT INTO requests (id, target, payload, most, time) VALUES (?, ?, ?, ?, ?)", row
            )
            return None

        return await self._database.write(work)

    async def mark_sent(self, identity: str, at: float) -> None:
        """The request with that id is about to be sent, at that time of day, and may be done from now on.

        Raises:
          StoreError: that cannot be written: do not send it.

        """

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE requests SET sent_at = ? WHERE id = ? AND sent_at IS NULL", (at, identity)
            )

        await self._database.write(work)

    async def forget(self, identity: str) -> None:
        """The request with that id was answered, or given up.

        Raises:
          StoreError: that cannot be written: it will be sent again, and answered from the record.

        """

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM requests WHERE id = ?", (identity,))

        await self._database.write(work)

    async def restore(self) -> list[Kept]:
        """Return what there is, in its order.

        Raises:
          StoreError: the file cannot be read.

        """

        def work(connection: sqlite3.Connection) -> list[Kept]:
            return [_kept(row) for row in connection.execute(ALL)]

        return await self._database.read(work)


@asynccontextmanager
async def open_outbox_store(path: Path) -> AsyncGenerator[OutboxStore]:
    """Open the file at *path*.

    Raises:
      StoreError: it cannot be used.

    """
    async with open_database(path, VERSION, TABLES) as database:
        yield OutboxStore(database)


def _kept(row: tuple[str, str, bytes, int, float, float | None]) -> Kept:
    """Return what a row says."""
    identity, target, payload, most, seconds, sent_at = row
    return Kept(Request(id=identity, target=target, payload=payload, most=most, time=seconds), sent_at)

"""Requests that wait, in a file: those of high priority outlive the program that accepted them.

A request that was sent may have been done, and only its far end's record keeps it from being done again. So the file
tells those that were sent, when and to whose record, from those that were not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from tunnel_relay.database import Database, open_database
from tunnel_relay.protocol.requests import Request

VERSION = 2
TABLES = (
    """
    CREATE TABLE requests (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        target TEXT NOT NULL,
        payload BLOB NOT NULL,
        most INTEGER NOT NULL,
        time REAL NOT NULL,
        sent_at REAL,
        record TEXT
    )
    """,
)
ALL = "SELECT id, target, payload, most, time, sent_at, record FROM requests ORDER BY position"
ONE = "SELECT id, target, payload, most, time, sent_at, record FROM requests WHERE id = ?"


@attrs.frozen
class Sent:
    """When a request was first sent, by the time of day, and the id of the record that its far end keeps."""

    at: float
    record: str


@attrs.frozen
class Kept:
    """A request in the file; *sent* is None where it never was."""

    request: Request
    sent: Sent | None = None


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

    async def mark_sent(self, identity: str, sent: Sent) -> None:
        """The request with that id is about to be sent, and may be done from now on.

        Raises:
          StoreError: that cannot be written: do not send it.

        """
        row = (sent.at, sent.record, identity)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE requests SET sent_at = ?, record = ? WHERE id = ? AND sent_at IS NULL", row
            )

        await self._database.write(work)

    async def mark_unsent(self, identity: str) -> None:
        """The request with that id was sent, and certainly not done.

        Raises:
          StoreError: that cannot be written: it still counts as sent.

        """

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE requests SET sent_at = NULL, record = NULL WHERE id = ?", (identity,))

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


def _kept(row: tuple[str, str, bytes, int, float, float | None, str]) -> Kept:
    """Return what a row says."""
    identity, target, payload, most, seconds, sent_at, record = row
    request = Request(id=identity, target=target, payload=payload, most=most, time=seconds)
    return Kept(request, None if sent_at is None else Sent(sent_at, record))

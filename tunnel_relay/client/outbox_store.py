"""Requests that wait, in a file: those of high priority outlive the program that accepted them.

A request that was sent may have been done, and only its far end's record keeps it from being done again. So the file
tells those that were sent from those that were not, and what was sent is not sent again once that record may have
forgotten it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator, Callable
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

# Seconds for which what was sent may be sent again: a far end keeps its record for a day, and clocks differ.
SENT_KEPT = 23 * 3600.0


@attrs.frozen
class Restored:
    """What an earlier time has left.

    Attributes:
      requests: To be sent, in their order.
      expired: The ids of those that were sent too long ago; nobody knows whether they were done.

    """

    requests: list[Request]
    expired: list[str]


@attrs.define(eq=False)
class OutboxStore:
    """The file; *clock* tells the time of day, in seconds."""

    _database: Database
    _clock: Callable[[], float] = time.time

    async def keep(self, request: Request) -> None:
        """Write *request* to the disk; one with its id that is there stays.

        Raises:
          StoreError: that cannot be done: the request is not kept.

        """
        row = (request.id, request.target, request.payload, request.most, request.time)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO requests (id, target, payload, most, time) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO NOTHING",
                row,
            )

        await self._database.write(work)

    async def mark_sent(self, identity: str) -> None:
        """The request with that id is about to be sent, and may be done from now on.

        Raises:
          StoreError: that cannot be written: do not send it.

        """
        now = self._clock()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE requests SET sent_at = ? WHERE id = ? AND sent_at IS NULL", (now, identity)
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

    async def restore(self) -> Restored:
        """Return what there is; what has expired is forgotten.

        Raises:
          StoreError: the file cannot be read or written.

        """
        oldest = self._clock() - SENT_KEPT

        def work(connection: sqlite3.Connection) -> Restored:
            expired = connection.execute(
                "DELETE FROM requests WHERE sent_at < ? RETURNING id", (oldest,)
            ).fetchall()
            rows = connection.execute(
                "SELECT id, target, payload, most, time FROM requests ORDER BY position"
            )
            requests = [
                Request(id=identity, target=target, payload=payload, most=most, time=seconds)
                for identity, target, payload, most, seconds in rows
            ]
            return Restored(requests, [str(identity) for (identity,) in expired])

        return await self._database.write(work)


@asynccontextmanager
async def open_outbox_store(
    path: Path, clock: Callable[[], float] = time.time
) -> AsyncGenerator[OutboxStore]:
    """Open the file at *path*.

    Raises:
      StoreError: it cannot be used.

    """
    async with open_database(path, VERSION, TABLES) as database:
        yield OutboxStore(database, clock)

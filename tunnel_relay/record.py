"""What was done with requests, for a day: one that comes again is answered from here, and not done twice.

A request is known by who makes it and its id. Whatever the target may have noticed is recorded; what never reached it
may be tried again. Only where the far end dies between the act and its record is a request done a second time.

The record is bounded, for each owner and in all. Where answers take too much room the oldest are dropped, and with
them only what the target said: that the request was done is still known. Only past so many requests are the oldest
forgotten.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from tunnel_relay.database import Database, open_database
from tunnel_relay.errors import StoreError
from tunnel_relay.protocol.requests import Request, Response, Status

VERSION = 2

# *size* is what the answer takes; *answer* is NULL once it was dropped.
TABLES = (
    """
    CREATE TABLE done (
        number INTEGER PRIMARY KEY,
        owner TEXT NOT NULL,
        id TEXT NOT NULL,
        digest BLOB NOT NULL,
        at REAL NOT NULL,
        status INTEGER NOT NULL,
        detail TEXT NOT NULL,
        answer BLOB,
        size INTEGER NOT NULL,
        UNIQUE (owner, id)
    )
    """,
    "CREATE TABLE identity (id TEXT NOT NULL)",
    "INSERT INTO identity VALUES (lower(hex(randomblob(16))))",
    "CREATE INDEX by_age ON done (at)",
    "CREATE INDEX by_owner ON done (owner, at)",
    "CREATE INDEX answers_by_age ON done (at) WHERE size > 0",
    "CREATE INDEX answers_by_owner ON done (owner, at) WHERE size > 0",
    "CREATE TABLE totals (owner TEXT PRIMARY KEY, entries INTEGER NOT NULL, bytes INTEGER NOT NULL)",
    """
    CREATE TRIGGER is_added AFTER INSERT ON done BEGIN
        INSERT INTO totals VALUES (new.owner, 1, new.size)
            ON CONFLICT (owner) DO UPDATE SET entries = entries + 1, bytes = bytes + new.size;
    END
    """,
    """
    CREATE TRIGGER is_dropped AFTER UPDATE OF size ON done BEGIN
        UPDATE totals SET bytes = bytes - old.size + new.size WHERE owner = new.owner;
    END
    """,
    """
    CREATE TRIGGER is_forgotten AFTER DELETE ON done BEGIN
        UPDATE totals SET entries = entries - 1, bytes = bytes - old.size WHERE owner = old.owner;
        DELETE FROM totals WHERE owner = old.owner AND entries = 0;
    END
    """,
)

OLDEST_OF = "DELETE FROM done WHERE number = (SELECT number FROM done WHERE owner = ? ORDER BY at LIMIT 1)"
OLDEST = "DELETE FROM done WHERE number = (SELECT number FROM done ORDER BY at LIMIT 1)"
OLDEST_ANSWER_OF = """
    UPDATE done SET answer = NULL, size = 0
        WHERE number = (SELECT number FROM done WHERE owner = ? AND size > 0 ORDER BY at LIMIT 1)
"""
OLDEST_ANSWER = """
    UPDATE done SET answer = NULL, size = 0
        WHERE number = (SELECT number FROM done WHERE size > 0 ORDER BY at LIMIT 1)
"""
TOTAL_OF = "SELECT entries, bytes FROM totals WHERE owner = ?"
TOTAL = "SELECT sum(entries), sum(bytes) FROM totals"

# Of how many more requests than are kept it is remembered in memory that they may be known, before that is read anew.
SURPLUS = 50_000

# How long, in seconds, an act that has ended may take to be recorded though all else is cancelled.
RECORD_LIMIT = 30.0

MIB = 1024 * 1024


@attrs.frozen(kw_only=True)
class RecordSettings:
    """Bounds of a record.

    Attributes:
      kept: Seconds for which a request is known.
      owner_entries: How many requests of one owner are.
      owner_bytes: How many bytes of answers to one owner are kept.
      entries: How many requests are known in all.
      bytes: How many bytes of answers are kept in all.

    """

    kept: float = 24 * 3600.0
    owner_entries: int = 50_000
    owner_bytes: int = 256 * MIB
    entries: int = 1_000_000
    bytes: int = 1024 * MIB


@attrs.frozen
class Outcome:
    """What an act has come to; *acted* says whether the target may have noticed anything."""

    response: Response
    acted: bool


Act = Callable[[Request], Awaitable[Outcome]]


@attrs.define(eq=False)
class _Doing:
    request: Request
    ended: trio.Event = attrs.field(factory=trio.Event)
    response: Response | None = None


@attrs.frozen
class _Row:
    owner: str
    request: Request
    at: float
    response: Response


@attrs.define(eq=False)
class Record:
    """See the module; *clock* tells the time of day, in seconds.

    Attributes:
      id: What tells this file from all others; it outlives the program.
      problem: Why what was done cannot be written down at the moment; while it cannot, nothing more is done.

    """

    _database: Database
    id: str
    settings: RecordSettings
    _clock: Callable[[], float] = time.time
    problem: str | None = attrs.field(default=None, init=False)
    _doing: dict[tuple[str, str], _Doing] = attrs.field(
        factory=dict[tuple[str, str], _Doing], init=False, repr=False
    )
    # What is done, and could not be written down: no more than was being done when that began.
    _unwritten: dict[tuple[str, str], _Row] = attrs.field(
        factory=dict[tuple[str, str], _Row], init=False, repr=False
    )

    # Whoever is not among them is not in the file either: most requests are new, and need not be looked for there.
    _maybe: set[int] = attrs.field(factory=set[int], init=False, repr=False)
    # What became known while the file is read.
    _newest: set[int] | None = attrs.field(default=None, init=False, repr=False)
    _most_maybe: int = attrs.field(default=SURPLUS, init=False)

    async def learn(self) -> None:
        """Read which requests may be known.

        Raises:
          StoreError: the file cannot be read.

        """
        if self._newest is not None:
            return
        self._newest = newest = {hash(key) for key in self._unwritten}

        def work(connection: sqlite3.Connection) -> set[int]:
            return {hash(key) for key in connection.execute("SELECT owner, id FROM done")}

        try:
            self._maybe = await self._database.read(work)
            self._maybe |= newest
        finally:
            self._newest = None
            self._most_maybe = len(self._maybe) + SURPLUS

    async def once(self, owner: str, request: Request, act: Act) -> Response:
        """Return what *act* makes of the request, or has made of it before.

        One that is being done is waited for. Where this is cancelled while it acts, nobody knows what was done, and
        the next one does it again.
        """
        key = owner, request.id
        while (doing := self._doing.get(key)) is not None:
            await doing.ended.wait()
            if doing.response is not None:
                same = doing.request.target == request.target and doing.request.payload == request.payload
                return _fitting(doing.response, request) if same else _misused(request)
        doing = self._doing[key] = _Doing(request)
        try:
            doing.response = await self._once(owner, request, act)
            return _fitting(doing.response, request)
        finally:
            del self._doing[key]
            doing.ended.set()

    async def _once(self, owner: str, request: Request, act: Act) -> Response:
        row = self._unwritten.get((owner, request.id))
        if row is not None:
            return row.response if _digest(row.request) == _digest(request) else _misused(request)
        try:
            if self.problem is not None:
                await self._write_rest()
            if len(self._maybe) > self._most_maybe:
                await self.learn()
            known = hash((owner, request.id)) in self._maybe
            found = await self._find(owner, request) if known else None
        except StoreError as exc:
            self.problem = str(exc)
            detail = f"what is done could not be recorded: {exc}"
            return Response(id=request.id, status=Status.FAILED, detail=detail)
        if found is not None:
            return found
        outcome = await act(request)
        if outcome.acted:
            key = owner, request.id
            row = self._unwritten[key] = _Row(owner, request, self._clock(), outcome.response)
            self._maybe.add(hash(key))
            if self._newest is not None:
                self._newest.add(hash(key))
            with trio.move_on_after(RECORD_LIMIT, shield=True) as limit:
                try:
                    await self._write(row)
                except StoreError as exc:
                    self.problem = str(exc)
            if limit.cancelled_caught:
                self.problem = f"it is not written down after {RECORD_LIMIT:g} s"
        return outcome.response

    async def _write_rest(self) -> None:
        """Write what could not be written down."""
        for row in list(self._unwritten.values()):
            await self._write(row)
        self.problem = None

    async def _write(self, row: _Row) -> None:
        """Write *row* down; others that are to be written at the same time share the wait for the disk."""
        await self._database.add(self._add, row)
        self._unwritten.pop((row.owner, row.request.id), None)

    async def _find(self, owner: str, request: Request) -> Response | None:
        oldest = self._clock() - self.settings.kept

        def work(connection: sqlite3.Connection) -> Response | None:
            found = connection.execute(
                "SELECT digest, status, detail, answer FROM done WHERE owner = ? AND id = ? AND at > ?",
                (owner, request.id, oldest),
            ).fetchone()
            if found is None:
                return None
            digest, status, detail, answer = found
            if digest != _digest(request):
                return _misused(request)
            if answer is None:
                detail = f"it was done before ({Status(status).name}), and what was said is not kept any more"
                return Response(id=request.id, status=Status.FORGOTTEN, detail=detail)
            return Response(id=request.id, status=Status(status), payload=answer, detail=detail)

        return await self._database.read(work)

    def _add(self, connection: sqlite3.Connection, rows: Sequence[_Row]) -> Sequence[None]:
        """Write *rows*, in a transaction, and make room; runs in a thread, where each statement may wait for us."""
        settings = self.settings
        connection.execute("DELETE FROM done WHERE at <= ?", (rows[-1].at - settings.kept,))
        connection.executemany(
            "INSERT INTO done (owner, id, digest, at, status, detail, answer, size)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (owner, id) DO NOTHING",
            [
                (
                    row.owner,
                    row.request.id,
                    _digest(row.request),
                    row.at,
                    int(row.response.status),
                    row.response.detail,
                    row.response.payload,
                    len(row.response.payload),
                )
                for row in rows
            ],
        )
        for owner in {row.owner for row in rows}:
            _shrink(
                connection,
                TOTAL_OF,
                (owner,),
                (settings.owner_entries, OLDEST_OF),
                (settings.owner_bytes, OLDEST_ANSWER_OF),
            )
        _shrink(connection, TOTAL, (), (settings.entries, OLDEST), (settings.bytes, OLDEST_ANSWER))
        return [None] * len(rows)


@asynccontextmanager
async def open_record(
    path: Path, settings: RecordSettings, clock: Callable[[], float] = time.time
) -> AsyncGenerator[Record]:
    """Open the record at *path*.

    Raises:
      StoreError: it cannot be used.

    """
    async with open_database(path, VERSION, TABLES) as database:
        [identity] = await database.read(
            lambda connection: connection.execute("SELECT id FROM identity").fetchone()
        )
        record = Record(database, str(identity), settings, clock)
        await record.learn()
        yield record


def _shrink(
    connection: sqlite3.Connection,
    total: str,
    owner: tuple[str, ...],
    entries: tuple[int, str],
    size: tuple[int, str],
) -> None:
    """Forget the oldest while there is more than *entries* and *size* say, each a bound and what to do."""
    while True:
        found = connection.execute(total, owner).fetchone() or (0, 0)
        for (most, statement), there_is in zip((entries, size), found, strict=True):
            if (there_is or 0) > most:
                connection.execute(statement, owner)
                break
        else:
            return


def _digest(request: Request) -> bytes:
    """Return what tells whether two requests are the same."""
    digest = hashlib.sha256(len(request.target).to_bytes(4, "big"))
    digest.update(request.target.encode())
    digest.update(request.payload)
    return digest.digest()


def _misused(request: Request) -> Response:
    detail = "another request with this id was made before"
    return Response(id=request.id, status=Status.MISUSED, detail=detail)


def _fitting(response: Response, request: Request) -> Response:
    """Return *response* as far as the request allows it: the one that was done may have allowed more."""
    if len(response.payload) <= request.most:
        return response
    payload = bytes(response.payload[: request.most])
    return attrs.evolve(response, status=Status.TOO_LONG, payload=payload)

"""SQLite files that only their owner reads, used from worker threads, one piece of work at a time.

What is written is on the disk when the call returns (WAL, synchronous=FULL): it survives the loss of power. That takes
milliseconds, so what is to be written meanwhile goes to the disk together, next.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import attrs
import trio

from tunnel_relay.errors import StoreError

Result = TypeVar("Result")
Item = TypeVar("Item")

# Seconds that another process may keep the file locked.
BUSY = 5.0

# Seconds that work may hold up the end.
CLOSE_LIMIT = 10.0

# What the log is cut to once it was written back; a request of 16 MiB makes it longer at once.
LOG_BYTES = 16 * 1024 * 1024


@attrs.define(eq=False)
class _Piece:
    """Work that waits to be done; *turn* is set when it has *ended*, or when whoever waits for it has to do all."""

    do: Callable[[sqlite3.Connection, Sequence[Any]], Sequence[Any]]
    item: Any
    turn: trio.Event = attrs.field(factory=trio.Event)
    ended: bool = False
    result: Any = None
    failure: Exception | None = attrs.field(factory=lambda: StoreError("it was not written"))


@attrs.define(eq=False)
class Database:
    """An open file. Work that was begun is finished, even where whoever waits for it is cancelled."""

    path: Path
    _connection: sqlite3.Connection
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)
    _to_write: list[_Piece] = attrs.field(factory=list[_Piece], init=False)
    _writing: bool = attrs.field(default=False, init=False)

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Return what *work* does with the connection in a thread; it writes nothing.

        Raises:
          StoreError: the file cannot be read.

        """

        def run() -> Result:
            with _translated(self.path):
                return work(self._connection)

        return await trio.to_thread.run_sync(run, limiter=self._limiter)

    async def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Return what *work* does with the connection in a thread: all of it is written, or nothing.

        What is written at the same time is one transaction. Where that fails *work* is done anew, alone.

        Raises:
          StoreError: the file cannot be written; the disk may be full.

        """
        return await self._write(_Piece(_one_by_one, work))

    async def add(
        self, write: Callable[[sqlite3.Connection, Sequence[Item]], Sequence[None]], item: Item
    ) -> None:
        """Have *write* write *item*, and what else it has at the same time in one call: that spares most of the cost.

        Raises:
          StoreError: see `write`.

        """
        await self._write(_Piece(write, item))

    async def _write(self, piece: _Piece) -> Any:  # noqa: ANN401  # what its caller's work returns
        await trio.lowlevel.checkpoint_if_cancelled()
        self._to_write.append(piece)
        if self._writing:
            try:
                await piece.turn.wait()
            except trio.Cancelled:
                if not piece.ended and piece in self._to_write:
                    self._to_write.remove(piece)
                    if piece.turn.is_set():
                        self._pass_on()
                raise
        if not piece.ended:
            await self._write_all()
        if piece.failure is not None:
            raise piece.failure
        return piece.result

    async def _write_all(self) -> None:
        """Do all that waits."""
        self._writing = True
        pieces, self._to_write = self._to_write, []
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._do, pieces, limiter=self._limiter)
        finally:
            for piece in pieces:
                piece.ended = True
                piece.turn.set()
            self._pass_on()

    def _pass_on(self) -> None:
        """Let the first of those that wait do all that waits."""
        self._writing = bool(self._to_write)
        if self._to_write:
            self._to_write[0].turn.set()

    def _do(self, pieces: Sequence[_Piece]) -> None:
        """Do *pieces*, at once if that is possible; runs in a thread."""
        if len(pieces) > 1:
            # Whose fault it was shows when each is alone.
            with suppress(Exception):
                with _transaction(self._connection):
                    results = list(self._results(pieces))
                for piece, result in zip(pieces, results, strict=True):
                    piece.result, piece.failure = result, None
                return
        for piece in pieces:
            try:
                with _translated(self.path), _transaction(self._connection):
                    [result] = piece.do(self._connection, [piece.item])
            except Exception as exc:
                piece.failure = exc
            else:
                piece.result, piece.failure = result, None

    def _results(self, pieces: Sequence[_Piece]) -> Iterator[Any]:
        for do, alike in itertools.groupby(pieces, key=attrgetter("do")):
            yield from do(self._connection, [piece.item for piece in alike])

    async def close(self) -> None:
        """Close the file, behind the work that was begun; the log is written back."""
        with trio.move_on_after(CLOSE_LIMIT, shield=True):
            await trio.to_thread.run_sync(self._connection.close, limiter=self._limiter)


def _one_by_one(
    connection: sqlite3.Connection, works: Sequence[Callable[[sqlite3.Connection], Any]]
) -> Sequence[Any]:
    return [work(connection) for work in works]


@asynccontextmanager
async def open_database(path: Path, version: int, tables: Sequence[str]) -> AsyncGenerator[Database]:
    """Open the file at *path*, which is made with *tables* (SQL) where there is none; nobody else may read it.

    Raises:
      StoreError: it cannot be used, or is not of this *version*.

    """
    connection = await trio.to_thread.run_sync(_open, path, version, tables)
    database = Database(path, connection)
    try:
        yield database
    finally:
        await database.close()


def _open(path: Path, version: int, tables: Sequence[str]) -> sqlite3.Connection:
    with _translated(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its other files the same permissions.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        for each in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            if each.exists():
                each.chmod(0o600)
        connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path, version, tables)
        except BaseException:
            connection.close()
            raise
        return connection


def _prepare(connection: sqlite3.Connection, path: Path, version: int, tables: Sequence[str]) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found == 0:
        with _transaction(connection):
            for statement in tables:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
    elif found != version:
        raise StoreError(f"{path} is of version {found}, and this program knows {version}: move it away")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _translated(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.DatabaseError as exc:
        raise StoreError(f"{path}: {exc}") from exc
    except OSError as exc:
        raise StoreError(f"{path}: {exc.strerror or exc}") from exc

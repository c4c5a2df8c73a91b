"""The file of an audit log: appended to off the event loop, by one process at a time, and never left half written.

What cannot be written waits, up to a bound, and is tried again; meanwhile `AuditFile.trouble` says what is wrong. Where
more came than can wait, an entry in its place tells how many are lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable, Generator
from pathlib import Path

import attrs
import trio

from session_proxy.errors import ExitCode, SessionProxyError
from tunnel_relay.protocol.audit_chain import Action, AuditEntry, Head, Result, append, head_after

# Entries that may wait for room on the disk: some megabytes.
MOST_WAITING = 10_000

# Seconds between two tries.
RETRY = 1.0

# How long the last writing, at the end, may take.
FINISH = 5.0

# An entry has at most so many bytes: 32 details of 1024 characters, each of which may be written with twelve.
_LONGEST = 1 << 20


class AuditError(SessionProxyError):
    """The audit log cannot be continued; says what to do."""

    exit_code = ExitCode.CONFIGURATION


@attrs.define(eq=False)
class AuditFile:
    """An audit log; see the module. Made by `open_audit`.

    Attributes:
      path: Where it is.
      head: Where its chain has got to, as far as it is written.
      cut: Bytes of an entry cut short that were found at its end and taken away: the writer had died.
      written: How many entries were written.
      lost: How many were not, for want of room.
      trouble: Why nothing can be written now; empty where it can.

    """

    path: Path
    head: Head
    cut: int
    _descriptor: int
    _end: int
    written: int = attrs.field(default=0, init=False)
    lost: int = attrs.field(default=0, init=False)
    trouble: str = attrs.field(default="", init=False)
    # Whether there may be more in the file than what was written.
    _torn: bool = attrs.field(default=False, init=False)
    # What was lost since there was no room, and when the last of it was.
    _missing: int = attrs.field(default=0, init=False)
    _missed_at: float = attrs.field(default=0.0, init=False)
    _waiting: deque[AuditEntry] = attrs.field(factory=deque[AuditEntry], init=False)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)

    def add(self, entry: AuditEntry) -> None:
        """Have *entry* written; does not wait."""
        if len(self._waiting) >= MOST_WAITING:
            self.lost += 1
            self._missing += 1
            self._missed_at = entry.time
            return
        self._waiting.append(entry)
        self._news.set()

    async def run(self, tell: Callable[[str], None]) -> None:
        """Write what is added until cancelled, and then what is left; tell when there is trouble, or is no more."""
        try:
            while True:
                while not self._waiting:
                    self._news = trio.Event()
                    await self._news.wait()
                await self._write_all(tell)
        finally:
            with trio.move_on_after(FINISH, shield=True):
                await self._write_all(tell)
            if self._torn:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._end)

    async def _write_all(self, tell: Callable[[str], None]) -> None:
        while self._waiting:
            if not await self._write(tell):
                await trio.sleep(RETRY)

    async def _write(self, tell: Callable[[str], None]) -> bool:
        entries = tuple(self._waiting)
        try:
            # Not abandoned when cancelled: nobody else may write meanwhile.
            await trio.to_thread.run_sync(self._write_now, entries)
        except OSError as exc:
            trouble = f"{self.path}: {(exc.strerror or str(exc)).lower()}"
        else:
            trouble = ""
            self.written += len(entries)
            for _ in entries:
                self._waiting.popleft()
            self._add_missing()
        if trouble != self.trouble:
            self.trouble = trouble
            tell(trouble or f"{self.path}: can be written to again")
        return not trouble

    def _add_missing(self) -> None:
        """Have it written how many entries were lost, in their place: nothing else was added since there is room."""
        if not self._missing:
            return
        lost = AuditEntry(
            time=self._missed_at,
            action=Action.ERROR,
            result=Result.FAILURE,
            details={"detail": "entries of the audit log are lost: too many waited", "lost": self._missing},
        )
        self._missing = 0
        self._waiting.append(lost)

    def _write_now(self, entries: tuple[AuditEntry, ...]) -> None:
        lines: list[bytes] = []
        head = self.head
        for entry in entries:
            line, head = append(entry, head)
            lines.append(line)
        data = b"".join(lines)
        if self._torn:
            os.ftruncate(self._descriptor, self._end)
        self._torn = True
        _write_all(self._descriptor, data)
        os.fdatasync(self._descriptor)
        self._torn = False
        self._end += len(data)
        self.head = head


@contextlib.contextmanager
def open_audit(path: Path) -> Generator[AuditFile]:
    """Continue the log at *path*, or begin it; blocks for as long as the disk takes.

    Raises:
      AuditError: it cannot be written to, its last entry is none, or another process has it.

    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise AuditError(f"{path}: {reason}; name a file in a folder that is yours as audit.file") from exc
    try:
        yield _continue(path, descriptor)
    finally:
        os.close(descriptor)


def _continue(path: Path, descriptor: int) -> AuditFile:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, _LONGEST, max(0, size - _LONGEST))
        cut = len(tail) - (tail.rfind(b"\n") + 1)
        if cut:
            size -= cut
            os.ftruncate(descriptor, size)
    except BlockingIOError as exc:
        raise AuditError(f"{path}: another process writes to it; name another file as audit.file") from exc
    except OSError as exc:
        raise AuditError(f"{path}: {(exc.strerror or str(exc)).lower()}") from exc
    head = Head()
    if size:
        found = head_after(tail[: len(tail) - cut].rstrip(b"\n").rpartition(b"\n")[2])
        if found is None:
            raise AuditError(f"{path}: its last line is no entry of an audit log; move it away, and keep it")
        head = found
    return AuditFile(path, head, cut, descriptor, size)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

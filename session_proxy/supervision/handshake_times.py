"""What a server of kind awg remembers over a restart: the stamp of each peer's newest handshake.

An initiation is answered only if its stamp (TAI64N) is newer than the last one of the same peer. Without this
memory, whoever has recorded an initiation could have it answered once after every restart, and so learn that
there is a server.

A stamp from the future is none to hold a peer to: its clock was wrong, and once it is right the peer would be shut
out until then. Nor are all stamps that seem so forgotten: it may be our own clock that is wrong, and right again later.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self, cast

import attrs
import trio

from awg_obfs.errors import KeyFormatError
from awg_obfs.protocol import tai64n
from awg_obfs.protocol.keys import key_from_text, key_to_text
from session_proxy.errors import ExitCode, Problem, SessionProxyError
from session_proxy.profile.private_files import write_private
from session_proxy.supervision.state_folder import problem_of

# Between two tries to write where the disk is full. A stamp is new every two minutes and peer.
RETRY = 5.0

# How long the last writing, at the end, may take.
FINISH = 5.0

STAMP_LENGTH = 12

# How far a peer's clock may be ahead, in nanoseconds.
AHEAD = 3600 * 1_000_000_000


class StateError(SessionProxyError):
    """The state folder cannot be used; says what to do. *problem* is there where the fault is the folder's."""

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem


@attrs.define(eq=False)
class HandshakeTimes:
    """The stamps by public key, kept in a file of the folder *path* is in. *problem* says why it is not current."""

    path: Path
    problem: str = ""
    _unix_time_ns: Callable[[], int] = attrs.field(default=time.time_ns, alias="unix_time_ns", repr=False)
    _stamps: dict[bytes, bytes] = attrs.field(factory=dict[bytes, bytes], repr=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)
    # One write at a time, those included that nobody waits for any more: a later one has the later stamps.
    _writing: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(1), init=False, repr=False
    )

    @classmethod
    def open(cls, folder: Path, server_key: bytes, unix_time_ns: Callable[[], int] = time.time_ns) -> Self:
        """Return what the server with the public key *server_key* remembers in *folder*, which is made if need be.

        The file is written at once: a disk that is full is found out about now, and not in the night.

        Raises:
          StateError: the folder or the file cannot be used.

        """
        times = cls(folder / f"handshakes-{server_key[:8].hex()}.json", unix_time_ns=unix_time_ns)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            times._stamps = _read(times.path)
            times._write()
        except OSError as exc:
            problem = problem_of(folder, exc)
            raise StateError(str(problem), problem) from exc
        return times

    def of(self, public_key: bytes) -> bytes:
        """Return the last stamp of the peer with *public_key*, empty where there is none that counts."""
        stamp = self._stamps.get(public_key, b"")
        return b"" if self._is_from_future(stamp) else stamp

    def remember(self, public_key: bytes, stamp: bytes) -> None:
        """Keep *stamp*, if it is newer than what is known, and not from the future; it is on disk soon."""
        # Stamps compare as the bytes that they are.
        if stamp > self.of(public_key) and not self._is_from_future(stamp):
            self._stamps[public_key] = stamp
            self._changed.set()

    async def run(self, report: Callable[[str], None]) -> None:
        """Write what is new, until cancelled; *report* gets one line when that fails, and when it works again.

        What is new then is written yet, for which the disk has `FINISH` seconds.
        """
        future = sum(map(self._is_from_future, self._stamps.values()))
        if future:
            report(
                f"{self.path}: does not count for {future} of {len(self._stamps)} peers: it has times in the future; "
                "see to the clock of this machine, or of theirs"
            )
        try:
            while True:
                await self._changed.wait()
                self._changed = trio.Event()
                saved = False
                try:
                    saved = await self._save(report)
                finally:
                    # Nor is saved what was given up within.
                    if not saved:
                        self._changed.set()
                if not saved:
                    await trio.sleep(RETRY)
        finally:
            with trio.move_on_after(FINISH, shield=True) as patience:
                if self._changed.is_set():
                    await self._save(report)
            if patience.cancelled_caught:
                report(f"{self.path} cannot be written: the disk does not answer")

    def _is_from_future(self, stamp: bytes) -> bool:
        return stamp > tai64n.stamp(self._unix_time_ns() + AHEAD)

    async def _save(self, report: Callable[[str], None]) -> bool:
        before = self.problem
        try:
            # A disk may take its time, or hang; nobody else waits for it. Half a file is never seen.
            await trio.to_thread.run_sync(self._write, limiter=self._writing, abandon_on_cancel=True)
        except OSError as exc:
            self.problem = f"{self.path} cannot be written: {_reason(exc)}"
        else:
            self.problem = ""
        if self.problem != before:
            report(self.problem or f"{self.path} can be written again")
        return not self.problem

    def _write(self) -> None:
        stamps = {key_to_text(key): stamp.hex() for key, stamp in list(self._stamps.items())}
        write_private(self.path, json.dumps({"peers": stamps}, indent=2) + "\n")


def _read(path: Path) -> dict[bytes, bytes]:
    try:
        peers = cast("dict[str, str]", json.loads(path.read_text(encoding="utf-8"))["peers"])
        stamps = {key_from_text(key): bytes.fromhex(stamp) for key, stamp in peers.items()}
    except FileNotFoundError:
        return {}
    except PermissionError as exc:
        raise StateError(
            f"{path}: cannot be read: {_reason(exc)}; give it to the user who runs the server"
        ) from exc
    except (ValueError, KeyError, TypeError, AttributeError, KeyFormatError):
        stamps = None
    if stamps is None or any(len(stamp) != STAMP_LENGTH for stamp in stamps.values()):
        # Not passed over: who can damage the file could have old handshakes answered.
        raise StateError(f"{path}: is damaged; put its backup there, or remove it and restart all clients")
    return stamps


def _reason(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()

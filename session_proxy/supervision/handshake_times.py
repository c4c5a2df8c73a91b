"""What a server of kind awg remembers over a restart: the stamp of each peer's newest handshake.

An initiation is answered only if its stamp (TAI64N) is newer than the last one of the same peer. Without this
memory, whoever has recorded an initiation could have it answered once after every restart, and so learn that
there is a server.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Self, cast

import attrs
import trio

from awg_obfs.errors import KeyFormatError
from awg_obfs.protocol.keys import key_from_text, key_to_text
from session_proxy.errors import ExitCode, SessionProxyError
from session_proxy.profile.private_files import write_private

# Between two tries to write where the disk is full. A stamp is new every two minutes and peer.
RETRY = 5.0

# How long the last writing, at the end, may take.
FINISH = 5.0

STAMP_LENGTH = 12


class StateError(SessionProxyError):
    """The state folder cannot be used; says what to do."""

    exit_code = ExitCode.CONFIGURATION


@attrs.define(eq=False)
class HandshakeTimes:
    """The stamps by public key, kept in a file of the folder *path* is in. *problem* says why it is not current."""

    path: Path
    problem: str = ""
    _stamps: dict[bytes, bytes] = attrs.field(factory=dict[bytes, bytes], repr=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)

    @classmethod
    def open(cls, folder: Path, server_key: bytes) -> Self:
        """Return what the server with the public key *server_key* remembers in *folder*, which is made if need be.

        The file is written at once: a disk that is full is found out about now, and not in the night.

        Raises:
          StateError: the folder or the file cannot be used.

        """
        times = cls(folder / f"handshakes-{server_key[:8].hex()}.json")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            times._stamps = _read(times.path)
            times._write()
        except OSError as exc:
            raise StateError(
                f"{times.path}: cannot be written: {_reason(exc)}; make room or a folder that is ours, "
                "or name another one as state"
            ) from exc
        return times

    def of(self, public_key: bytes) -> bytes:
        """Return the last stamp of the peer with *public_key*, empty where there is none."""
        return self._stamps.get(public_key, b"")

    def remember(self, public_key: bytes, stamp: bytes) -> None:
        """Keep *stamp*, if it is newer than what is known; it is on disk soon."""
        # Stamps compare as the bytes that they are.
        if stamp > self.of(public_key):
            self._stamps[public_key] = stamp
            self._changed.set()

    async def run(self, report: Callable[[str], None]) -> None:
        """Write what is new, until cancelled; *report* gets one line when that fails, and when it works again."""
        try:
            while True:
                await self._changed.wait()
                self._changed = trio.Event()
                if not await self._save(report):
                    self._changed.set()
                    await trio.sleep(RETRY)
        finally:
            with trio.move_on_after(FINISH, shield=True):
                if self._changed.is_set():
                    await self._save(report)

    async def _save(self, report: Callable[[str], None]) -> bool:
        before = self.problem
        try:
            # A disk may take its time; nobody else waits for it. Half a file is never seen.
            await trio.to_thread.run_sync(self._write)
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
    except (ValueError, KeyError, TypeError, AttributeError, KeyFormatError):
        stamps = None
    if stamps is None or any(len(stamp) != STAMP_LENGTH for stamp in stamps.values()):
        # Not passed over: who can damage the file could have old handshakes answered.
        raise StateError(f"{path}: is damaged; put its backup there, or remove it and restart all clients")
    return stamps


def _reason(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()

"""An audit log on a disk: continued, cut short, full, and somebody else's."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from session_proxy.observability import audit_file
from session_proxy.observability.audit_file import AuditError, AuditFile, open_audit
from tests.support.tunnels import eventually
from tunnel_relay.background import open_background
from tunnel_relay.protocol.audit_chain import Action, AuditEntry, Head, Intact, Result, verify


def entry(resource: str = "") -> AuditEntry:
    return AuditEntry(time=1_800_000_000, action=Action.CONNECT, result=Result.SUCCESS, resource=resource)


def check(path: Path) -> int:
    """Return how many entries there are, all of which are as they were written."""
    found = verify(path.read_bytes().splitlines())
    assert isinstance(found, Intact), found
    return found.head.number


async def write(audit: AuditFile, *entries: AuditEntry) -> list[str]:
    """Have entries written, and return what is told meanwhile."""
    told: list[str] = []
    async with open_background() as nursery:
        nursery.start_soon(audit.run, told.append)
        await trio.testing.wait_all_tasks_blocked()
        for each in entries:
            audit.add(each)
    return told


async def test_a_log_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for total in (3, 6, 9):
        with open_audit(path) as audit:
            assert audit.head.number == total - 3
            await write(audit, *(entry(f"{total}-{number}") for number in range(3)))
            assert (audit.written, audit.lost, audit.trouble) == (3, 0, "")
        assert check(path) == total
    assert path.stat().st_mode & 0o777 == 0o600


async def test_what_was_cut_short_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with open_audit(path) as audit:
        await write(audit, entry("one"), entry("two"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with open_audit(path) as audit:
        assert audit.cut == len(whole.splitlines()[1]) + 1 - 10
        assert audit.head.number == 1
        await write(audit, entry("three"))
    assert check(path) == 2


async def test_what_cannot_be_written_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    path, room = tmp_path / "audit.jsonl", 150
    real = os.write

    def short(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(descriptor, bytes(data[:room]))
        room -= written
        return written

    monkeypatch.setattr(audit_file.os, "write", short)
    tell, news = trio.open_memory_channel[str](10)
    with open_audit(path) as audit:
        async with open_background() as nursery:
            nursery.start_soon(audit.run, tell.send_nowait)
            audit.add(entry("one"))
            told = [await news.receive()]
            assert audit.trouble == f"{path}: no space left on device"
            assert (audit.head, audit.written) == (Head(), 0)
            audit.add(entry("two"))
            await trio.sleep(5)
            room = 1 << 20
            told.append(await news.receive())
            assert (audit.head.number, audit.written) == (2, 2)
    assert told == [f"{path}: no space left on device", f"{path}: can be written to again"]
    assert check(path) == 2


async def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "MOST_WAITING", 2)
    with open_audit(tmp_path / "audit.jsonl") as audit:
        for number in range(5):
            audit.add(entry(str(number)))
        assert audit.lost == 3
        async with open_background() as nursery:
            nursery.start_soon(audit.run, print)
            await eventually(lambda: audit.written >= 3)
            audit.add(entry("5"))
        assert (audit.written, audit.lost) == (4, 3)
    assert check(tmp_path / "audit.jsonl") == 4
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["action"], line["resource"], line["details"].get("lost")) for line in lines] == [
        ("connect", "0", None),
        ("connect", "1", None),
        ("error", "", 3),
        ("connect", "5", None),
    ]


async def test_a_full_disk_at_the_end_leaves_no_half_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    path = tmp_path / "audit.jsonl"
    real = os.write

    def fail(descriptor: int, data: memoryview) -> int:
        if len(data) > 50:
            return real(descriptor, bytes(data[:50]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with open_audit(path) as audit:
        await write(audit, entry("one"))
        monkeypatch.setattr(audit_file.os, "write", fail)
        assert await write(audit, entry("two")) == [f"{path}: no space left on device"]
    assert check(path) == 1


def test_two_do_not_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with open_audit(path), pytest.raises(AuditError, match="another process writes to it"), open_audit(path):
        pass


def test_what_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text("something else\n")
    with pytest.raises(AuditError, match="its last line is no entry"), open_audit(path):
        pass
    assert path.read_text() == "something else\n"


def test_where_no_log_can_be(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no such file or directory"), open_audit(tmp_path / "a" / "b"):
        pass

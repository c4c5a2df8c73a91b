from __future__ import annotations

import errno
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from awg_obfs.protocol.tai64n import stamp
from session_proxy.profile import private_files
from session_proxy.supervision import handshake_times
from session_proxy.supervision.handshake_times import FINISH, HandshakeTimes, StateError
from session_proxy.supervision.state_folder import FIX, find_problem

SERVER = bytes(32)
LAPTOP = bytes(range(32))
EARLY, LATE = bytes(11) + b"\1", bytes(11) + b"\2"


def ignore(_line: str) -> None:
    pass


async def test_stamps_outlive_the_process(tmp_path: Path) -> None:
    times = HandshakeTimes.open(tmp_path / "new" / "state", SERVER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(times.run, ignore)
        times.remember(LAPTOP, EARLY)
        with trio.fail_after(5):
            while EARLY.hex() not in times.path.read_text():  # noqa: ASYNC110 - a file tells nobody
                await trio.sleep(0.001)
        times.remember(LAPTOP, LATE)
        # What is not written yet is written in the end.
        nursery.cancel_scope.cancel()

    again = HandshakeTimes.open(tmp_path / "new" / "state", SERVER)
    assert again.of(LAPTOP) == LATE
    assert again.of(SERVER) == b""
    assert stat.S_IMODE(times.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(times.path.parent.stat().st_mode) == 0o700


async def test_an_older_stamp_replaces_none(tmp_path: Path) -> None:
    times = HandshakeTimes.open(tmp_path, SERVER)

    times.remember(LAPTOP, LATE)
    times.remember(LAPTOP, EARLY)

    assert times.of(LAPTOP) == LATE


NOW = 1_800_000_000 * 1_000_000_000
HOUR = 3600 * 1_000_000_000
YEAR = 365 * 24 * HOUR


def test_a_stamp_from_the_future_is_not_remembered(tmp_path: Path) -> None:
    """The peer's clock was wrong; it must get in when that is right again and we have started anew."""
    times = HandshakeTimes.open(tmp_path, SERVER, lambda: NOW)
    times.remember(LAPTOP, stamp(NOW - HOUR))
    times.remember(LAPTOP, stamp(NOW + YEAR))
    assert times.of(LAPTOP) == stamp(NOW - HOUR)
    # A clock may go fast a little.
    times.remember(LAPTOP, stamp(NOW + HOUR // 2))
    assert times.of(LAPTOP) == stamp(NOW + HOUR // 2)


async def test_a_stamp_in_the_file_from_the_future_does_not_count(tmp_path: Path) -> None:
    now = NOW + YEAR
    times = HandshakeTimes.open(tmp_path, SERVER, lambda: now)
    times.remember(LAPTOP, stamp(now))
    times.remember(SERVER, stamp(NOW))
    times._write()

    now = NOW
    times = HandshakeTimes.open(tmp_path, SERVER, lambda: now)
    assert (times.of(LAPTOP), times.of(SERVER)) == (b"", stamp(NOW))
    send, told = trio.open_memory_channel[str](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(times.run, send.send_nowait)
        assert "does not count for 1 of 2 peers: it has times in the future" in await told.receive()
        nursery.cancel_scope.cancel()

    # Should it be this machine that was wrong, nothing is lost.
    now = NOW + YEAR
    assert HandshakeTimes.open(tmp_path, SERVER, lambda: now).of(LAPTOP) == stamp(NOW + YEAR)

    # Or else the next handshake replaces it.
    now = NOW
    times = HandshakeTimes.open(tmp_path, SERVER, lambda: now)
    times.remember(LAPTOP, stamp(NOW))
    assert times.of(LAPTOP) == stamp(NOW)


def test_servers_do_not_share_a_file(tmp_path: Path) -> None:
    one, other = HandshakeTimes.open(tmp_path, SERVER), HandshakeTimes.open(tmp_path, LAPTOP)

    assert one.path != other.path


def refuse(_path: Path, _text: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake_times, "write_private", refuse)

    with pytest.raises(StateError, match=r"cannot be written: no space left on device; make room") as info:
        HandshakeTimes.open(tmp_path, SERVER)

    assert info.value.exit_code == 78


def test_a_folder_that_is_none_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    for folder in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(StateError, match=r"^state: .*/file is a file, not a folder; ") as info:
            HandshakeTimes.open(folder, SERVER)
        assert info.value.problem == find_problem(folder)


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_of_somebody_else_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    if there:
        monkeypatch.setattr(handshake_times, "write_private", refuse)
    else:
        monkeypatch.setattr(Path, "mkdir", refuse)
    folder = tmp_path if there else tmp_path / "state"

    with pytest.raises(StateError) as info:
        HandshakeTimes.open(folder, SERVER)

    what = "written" if there else "made"
    assert str(info.value) == f"state: {folder} cannot be {what}: permission denied; {FIX}"


def test_a_file_of_somebody_else_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)

    with pytest.raises(StateError, match=r"\.json: cannot be read: permission denied; give it to the user"):
        HandshakeTimes.open(tmp_path, SERVER)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"peers": 1}', '{"peers": {"x": "00"}}', f'{{"peers": {{"{"A" * 43}=": "00"}}}}'],
)
def test_a_damaged_file_is_not_passed_over(text: str, tmp_path: Path) -> None:
    path = HandshakeTimes.open(tmp_path, SERVER).path
    path.write_text(text)

    with pytest.raises(StateError, match="is damaged"):
        HandshakeTimes.open(tmp_path, SERVER)
    assert path.read_text() == text


async def test_a_disk_that_fills_up_later_is_told_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake_times, "RETRY", 0.001)
    times = HandshakeTimes.open(tmp_path, SERVER)
    writes, failures = 0, 5

    def write(path: Path, text: str) -> None:
        nonlocal writes
        writes += 1
        if writes <= failures:
            raise OSError(errno.ENOSPC, "No space left on device")
        private_files.write_private(path, text)

    monkeypatch.setattr(handshake_times, "write_private", write)
    send, told = trio.open_memory_channel[str](10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(times.run, send.send_nowait)
        times.remember(LAPTOP, EARLY)
        with trio.fail_after(5):
            problem = await told.receive()
            assert problem == f"{times.path} cannot be written: no space left on device"
            assert await told.receive() == f"{times.path} can be written again"
        nursery.cancel_scope.cancel()

    assert writes == failures + 1
    assert not times.problem
    assert list(json.loads(times.path.read_text())["peers"].values()) == [EARLY.hex()]


@attrs.define(eq=False)
class SlowDisk:
    """Takes a file when `go_on` is set, and counts how many are `begun` and how many are written at the same time."""

    begun: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    go_on: threading.Event = attrs.field(factory=threading.Event)
    at_once: int = 0
    most_at_once: int = 0

    def write(self, path: Path, text: str) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.begun.release()
        self.go_on.wait()
        self.at_once -= 1
        private_files.write_private(path, text)


@pytest.fixture
def slow_disk() -> Iterator[SlowDisk]:
    disk = SlowDisk()
    yield disk
    disk.go_on.set()


async def test_a_disk_that_hangs_does_not_keep_us(
    tmp_path: Path, slow_disk: SlowDisk, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    times = HandshakeTimes.open(tmp_path, SERVER)
    monkeypatch.setattr(handshake_times, "write_private", slow_disk.write)
    told: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(times.run, told.append)
        times.remember(LAPTOP, EARLY)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert trio.current_time() == pytest.approx(1 + FINISH)
    assert told == [f"{times.path} cannot be written: the disk does not answer"]


async def test_a_write_that_was_given_up_is_made_up_for(
    tmp_path: Path, slow_disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = HandshakeTimes.open(tmp_path, SERVER)
    monkeypatch.setattr(handshake_times, "write_private", slow_disk.write)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(times.run, ignore)
            times.remember(LAPTOP, EARLY)
            await trio.to_thread.run_sync(slow_disk.begun.acquire)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
                times.remember(LAPTOP, LATE)
                slow_disk.go_on.set()

    assert slow_disk.most_at_once == 1
    assert HandshakeTimes.open(tmp_path, SERVER).of(LAPTOP) == LATE

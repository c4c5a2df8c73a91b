"""A process that is kept running: a few lines of Python play it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import structlog
import trio

from session_proxy.errors import ExitCode
from session_proxy.observability.log_settings import LogFormat, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.supervision import worker_process
from session_proxy.supervision.worker_process import Report, WorkerProcess, describe
from tests.support.tunnels import eventually
from tunnel_relay.background import open_background

SECONDS = 60

# It is ready, and ends when it may: at the end of its stdin, or by SIGTERM.
GOOD = "import sys; print('{\"ready\": true}', flush=True); sys.stdin.read()"


@attrs.define(eq=False)
class Kept:
    """A worker that is kept running, and the log about it; *stop* ends it."""

    worker: WorkerProcess
    lines: list[dict[str, object]]
    stop: trio.Event
    nursery: trio.Nursery


@asynccontextmanager
async def keep(program: str, *descriptors: int) -> AsyncGenerator[Kept]:
    lines: list[dict[str, object]] = []
    log = make_logger(lambda line: lines.append(json.loads(line)), LogSettings(log_format=LogFormat.JSON))
    worker, stop = WorkerProcess(2, [sys.executable, "-c", program], descriptors, log), trio.Event()
    with trio.fail_after(SECONDS):
        async with open_background() as nursery:
            nursery.start_soon(worker.run, stop)
            yield Kept(worker, lines, stop, nursery)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_is_asked_to_end() -> None:
    async with keep(GOOD) as kept:
        await kept.worker.settled.wait()
        pid = kept.worker.pid
        assert pid is not None
        assert is_alive(pid)
        assert kept.worker.failure is None
        # Signals of a terminal are not for it.
        assert os.getpgid(pid) == pid
        kept.stop.set()
        await kept.worker.over.wait()
        assert (kept.worker.pid, kept.worker.restarts, kept.lines) == (None, 0, [])
    assert not is_alive(pid)


async def test_it_takes_its_time_to_end(tmp_path: Path) -> None:
    done = tmp_path / "done"
    program = (
        "import pathlib, signal, sys\n"
        "def end(*_): "
        f"pathlib.Path({str(done)!r}).touch(); sys.exit()\n"
        f"signal.signal(signal.SIGTERM, end)\n{GOOD}"
    )
    async with keep(program) as kept:
        await kept.worker.settled.wait()
        kept.stop.set()
        await kept.worker.over.wait()
        assert done.exists()


async def test_it_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "PAUSES", (0.0, 0.01))
    async with keep(GOOD) as kept:
        await kept.worker.settled.wait()
        for restarts in (1, 2, 3):
            pid = kept.worker.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await eventually(
                lambda restarts=restarts: kept.worker.restarts == restarts and bool(kept.worker.pid)
            )
        told = [(line["event"], line["worker"], line["message"], line["again_in"]) for line in kept.lines]
        assert told == [("worker ended", 2, "was ended by SIGKILL", pause) for pause in (0.0, 0.01, 0.01)]


async def test_one_that_has_proven_itself_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "PAUSES", (0.0, 1000.0))
    monkeypatch.setattr(worker_process, "PROVEN", 0.0)
    async with keep(GOOD) as kept:
        for restarts in (0, 1, 2):
            await eventually(lambda restarts=restarts: kept.worker.restarts == restarts)
            # A process that has not said that it is ready has proven nothing.
            await eventually(lambda: kept.worker._ready_at is not None)
            kept.worker.replace()
        await eventually(lambda: kept.worker.restarts == 3)


async def test_a_pause_ends_with_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "PAUSES", (1000.0,))
    async with keep(GOOD) as kept:
        await kept.worker.settled.wait()
        kept.worker.replace()
        await eventually(lambda: bool(kept.lines))
        kept.worker.replace()
        kept.stop.set()
        await kept.worker.over.wait()


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        (
            'print(\'{"problems": ["a: b", "c: d"], "exit_code": 78}\'); raise SystemExit(78)',
            ExitCode.CONFIGURATION,
            "a: b\nc: d",
        ),
        (
            "raise SystemExit(3)",
            ExitCode.FAILURE,
            "worker 2 has ended with exit status 3 before it was ready",
        ),
        ("", ExitCode.FAILURE, "worker 2 has ended with exit status 0 before it was ready"),
        (
            "import os; os.kill(os.getpid(), 9)",
            ExitCode.FAILURE,
            "worker 2 was ended by SIGKILL before it was ready",
        ),
    ],
)
async def test_it_cannot_start(program: str, code: ExitCode, said: str) -> None:
    async with keep(program) as kept:
        await kept.worker.over.wait()
        assert kept.worker.settled.is_set()
        failure = kept.worker.failure
        assert failure is not None
        assert (str(failure), failure.exit_code, kept.lines) == (said, code, [])


async def test_there_is_no_program() -> None:
    worker, stop = WorkerProcess(2, ["/nowhere"], (), structlog.get_logger()), trio.Event()
    await worker.run(stop)
    assert str(worker.failure) == "worker 2 has got no process: no such file or directory"


async def test_what_is_wrong_later_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "PAUSES", (0.0,))
    flag = tmp_path / "flag"
    program = (
        f"import pathlib\nif pathlib.Path({str(flag)!r}).exists():\n"
        f'    print(\'{{"problems": ["disk: full"]}}\'); raise SystemExit(1)\n{GOOD}'
    )
    async with keep(program) as kept:
        await kept.worker.settled.wait()
        flag.touch()
        kept.worker.replace()
        await eventually(lambda: any(line["message"] == "disk: full" for line in kept.lines))
        flag.unlink()
        await eventually(lambda: kept.worker._ready_at is not None)
        assert kept.worker.failure is None


async def test_cancelled_it_ends_at_once() -> None:
    async with keep(GOOD) as kept:
        await kept.worker.settled.wait()
        pid = kept.worker.pid
        assert pid is not None
    assert not is_alive(pid)
    assert kept.worker.over.is_set()


async def test_one_that_does_not_care_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "PARTING", 0.05)
    async with keep(f"{GOOD}\nimport time; time.sleep(1000)") as kept:
        await kept.worker.settled.wait()
        pid = kept.worker.pid
        assert pid is not None
    assert not is_alive(pid)


async def test_it_inherits_what_it_is_to_have(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("w") as opened:
        async with keep(f"import os; os.write({opened.fileno()}, b'mine')\n{GOOD}", opened.fileno()) as kept:
            await kept.worker.settled.wait()
    assert file.read_text() == "mine"


async def test_there_may_be_nobody_to_replace() -> None:
    async with keep("raise SystemExit(1)") as kept:
        await kept.worker.over.wait()
        kept.worker.replace()


def test_how_a_process_ended() -> None:
    assert [describe(code) for code in (0, 78, -9, -200)] == [
        "has ended with exit status 0",
        "has ended with exit status 78",
        "was ended by SIGKILL",
        "was ended by signal 200",
    ]


def test_a_report_is_a_line() -> None:
    report = Report(problems=["a\nb"], exit_code=78)
    assert report.encode().count("\n") == 1
    assert Report(**json.loads(report.encode())) == report

from __future__ import annotations

import os
import pty
import signal
import sys
from collections.abc import Iterator

import pytest
import trio

from session_proxy.errors import ExitCode
from session_proxy.supervision import signals
from session_proxy.supervision.lifecycle import Lifecycle, Phase
from session_proxy.supervision.signals import obey_signals


@pytest.fixture(autouse=True)
def heed_signals() -> Iterator[None]:
    """Give the signals their usual meaning: whoever runs the tests under nohup, or from a script, ignores some."""
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def ignore() -> None:
    """Do nothing."""


async def test_a_hang_up_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what has a terminal, too, as long as it is there."""
    lifecycle = Lifecycle()
    lifecycle.become_ready([])
    for has_terminal in (False, True):
        monkeypatch.setattr(signals, "has_terminal", lambda answer=has_terminal: answer)
        reloaded = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(obey_signals, lifecycle, ignore, reloaded.set)
            os.kill(os.getpid(), signal.SIGHUP)
            await reloaded.wait()
            nursery.cancel_scope.cancel()

    assert not lifecycle.stop.is_set()


async def test_a_terminal_that_goes_away_ends_a_service_gracefully(monkeypatch: pytest.MonkeyPatch) -> None:
    lifecycle = Lifecycle()
    lifecycle.become_ready([])
    there = [True, False]
    monkeypatch.setattr(signals, "has_terminal", lambda: there.pop(0))

    async with trio.open_nursery() as nursery:
        await nursery.start(obey_signals, lifecycle, ignore, ignore)
        os.kill(os.getpid(), signal.SIGHUP)
        await lifecycle.stop.wait()
        nursery.cancel_scope.cancel()

    assert lifecycle.exit_code is ExitCode.OK


SHOW = "from session_proxy.supervision.signals import has_terminal; print(has_terminal(), flush=True)"


async def test_a_process_knows_whether_it_has_a_terminal() -> None:
    """One in a session of its own has none, until it opens one."""
    ours, theirs = pty.openpty()
    opened = f"import os; os.open({os.ttyname(theirs)!r}, os.O_RDWR)"
    try:
        for before, answer in (("pass", b"False"), (opened, b"True")):
            done = await trio.run_process(
                [sys.executable, "-c", f"{before}\n{SHOW}"], capture_stdout=True, start_new_session=True
            )
            assert done.stdout.strip() == answer
    finally:
        os.close(ours)
        os.close(theirs)


async def test_under_nohup_it_stays() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    async with trio.open_nursery() as nursery:
        await nursery.start(obey_signals, Lifecycle(), ignore, ignore)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        nursery.cancel_scope.cancel()


async def test_signals_end_a_service_and_show_its_tasks() -> None:
    lifecycle = Lifecycle()
    lifecycle.become_ready([])
    dumped = trio.Event()

    async with trio.open_nursery() as nursery:
        await nursery.start(obey_signals, lifecycle, dumped.set, ignore)

        os.kill(os.getpid(), signal.SIGUSR1)
        await dumped.wait()
        assert lifecycle.phase is Phase.READY

        os.kill(os.getpid(), signal.SIGINT)
        await lifecycle.stop.wait()
        assert not lifecycle.cut.is_set()

        os.kill(os.getpid(), signal.SIGTERM)
        await lifecycle.cut.wait()
        nursery.cancel_scope.cancel()

    assert lifecycle.exit_code is ExitCode.INTERRUPTED

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import trio

from session_proxy.errors import ExitCode
from session_proxy.supervision.lifecycle import Lifecycle, Phase
from session_proxy.supervision.signals import obey_signals


@pytest.fixture(autouse=True)
def heed_signals() -> Iterator[None]:
    """Give the signals their usual meaning: whoever runs the tests under nohup, or from a script, ignores some."""
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


async def test_a_terminal_that_goes_away_ends_a_service_gracefully() -> None:
    lifecycle = Lifecycle()
    lifecycle.become_ready([])

    async with trio.open_nursery() as nursery:
        await nursery.start(obey_signals, lifecycle, lambda: None)
        os.kill(os.getpid(), signal.SIGHUP)
        await lifecycle.stop.wait()
        nursery.cancel_scope.cancel()

    assert lifecycle.exit_code is ExitCode.OK


async def test_under_nohup_it_stays() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    async with trio.open_nursery() as nursery:
        await nursery.start(obey_signals, Lifecycle(), lambda: None)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        nursery.cancel_scope.cancel()


async def test_signals_end_a_service_and_show_its_tasks() -> None:
    lifecycle = Lifecycle()
    lifecycle.become_ready([])
    dumped = trio.Event()

    async with trio.open_nursery() as nursery:
        await nursery.start(obey_signals, lifecycle, dumped.set)

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

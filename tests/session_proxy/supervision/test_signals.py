from __future__ import annotations

import os
import signal

import trio

from session_proxy.errors import ExitCode
from session_proxy.supervision.lifecycle import Lifecycle, Phase
from session_proxy.supervision.signals import obey_signals


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

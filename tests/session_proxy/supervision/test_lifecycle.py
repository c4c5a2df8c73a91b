from __future__ import annotations

import signal

import pytest

from session_proxy.errors import ExitCode
from session_proxy.supervision.lifecycle import Lifecycle, Phase


def ready() -> Lifecycle:
    lifecycle = Lifecycle()
    lifecycle.become_ready(["127.0.0.1:1"])
    return lifecycle


def test_a_service_is_ready_when_it_listens() -> None:
    assert Lifecycle().phase is Phase.STARTING
    assert (ready().phase, ready().listen) == (Phase.READY, ("127.0.0.1:1",))


@pytest.mark.parametrize(
    ("signals", "code", "cut"),
    [
        ([signal.SIGTERM], ExitCode.OK, False),
        ([signal.SIGINT], ExitCode.INTERRUPTED, False),
        ([signal.SIGTERM, signal.SIGTERM], ExitCode.OK, True),
        ([signal.SIGINT, signal.SIGINT], ExitCode.INTERRUPTED, True),
        ([signal.SIGTERM, signal.SIGINT], ExitCode.INTERRUPTED, True),
    ],
)
def test_the_first_signal_drains_and_the_second_cuts(
    signals: list[signal.Signals], code: ExitCode, cut: bool
) -> None:
    lifecycle = ready()

    for signum in signals:
        lifecycle.receive_signal(signum)

    assert lifecycle.phase is Phase.DRAINING
    assert lifecycle.stop.is_set()
    assert (lifecycle.exit_code, lifecycle.cut.is_set()) == (code, cut)


def test_a_start_that_is_interrupted_has_nothing_to_finish() -> None:
    lifecycle = Lifecycle()

    lifecycle.receive_signal(signal.SIGTERM)
    lifecycle.become_ready(["127.0.0.1:1"])

    assert lifecycle.cut.is_set()
    assert lifecycle.phase is Phase.DRAINING, "it does not come back to life"


def test_draining_twice_is_draining_once() -> None:
    lifecycle = ready()

    lifecycle.drain()
    lifecycle.drain()

    assert not lifecycle.cut.is_set()
    lifecycle.receive_signal(signal.SIGTERM)
    assert lifecycle.cut.is_set(), "a signal after a drain means: now"

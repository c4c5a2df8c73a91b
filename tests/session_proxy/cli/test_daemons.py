"""The process around a daemon: its log on stderr, in colour where that helps, and its exit code."""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
from collections.abc import Mapping, Sequence

import attrs
import pytest
import trio

from session_proxy.cli.daemons import Composition, log_settings, run_daemon
from session_proxy.errors import ExitCode, ListenError
from session_proxy.observability.http import Handler
from session_proxy.observability.log_settings import LogFormat, LogLevel, LogSettings
from session_proxy.observability.logging import Log
from session_proxy.observability.sink import LineSink
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision.lifecycle import Lifecycle
from session_proxy.supervision.service import ServiceSettings


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what would be done to the garbage collector, and leave that of the tests alone."""
    done: list[str] = []

    def note(name: str, *_arguments: int) -> None:
        done.append(name)

    for name in ("collect", "freeze", "set_threshold"):
        monkeypatch.setattr(gc, name, functools.partial(note, name))
    return done


@attrs.frozen(eq=False)
class BriefDaemon:
    """A daemon that starts, lets a library warn, and is told to stop at once."""

    lifecycle: Lifecycle
    failure: Exception | None = None

    async def serve(self, stop: trio.Event, *, task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        task_status.started([ListenAddress("127.0.0.1", 1)])
        logging.getLogger("library").warning("mind the gap")
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        self.lifecycle.receive_signal(2)
        await stop.wait()

    def obstacles(self) -> Mapping[str, str]:
        return {}

    def status(self) -> Mapping[str, object]:
        return {}

    def pages(self) -> Mapping[tuple[str, str], Handler]:
        return {}

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        return b"", accept


def compose(_log: Log, _sink: LineSink, failure: Exception | None = None) -> Composition:
    lifecycle = Lifecycle()
    settings = ServiceSettings(name="brief", drain=1)
    return Composition(daemon=BriefDaemon(lifecycle, failure), settings=settings, lifecycle=lifecycle)


def test_a_daemon_logs_to_stderr_and_decides_the_exit_code(
    capfd: pytest.CaptureFixture[str], settled: list[str]
) -> None:
    code = run_daemon(compose, LogSettings(log_format=LogFormat.JSON))

    out, err = capfd.readouterr()
    assert code is ExitCode.INTERRUPTED
    assert out == ""
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert settled == ["collect", "freeze", "set_threshold"]
    assert sorted(events) == ["draining", "library", "ready", "stopped"]


def test_what_runs_beside_it_and_who_hears_that_it_is_ready(capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []

    async def beside() -> None:
        heard.append("beside")
        await trio.sleep_forever()

    def compose_more(log: Log, sink: LineSink) -> Composition:
        return attrs.evolve(compose(log, sink), beside=beside, on_ready=lambda: heard.append("ready"))

    run_daemon(compose_more, LogSettings(log_format=LogFormat.JSON), {"worker": 3})

    assert heard == ["beside", "ready"]
    assert {json.loads(line)["worker"] for line in capfd.readouterr().err.splitlines()} == {3}


def test_what_fails_comes_out_plain() -> None:
    def failing(log: Log, sink: LineSink) -> Composition:
        return compose(log, sink, ListenError("taken"))

    with pytest.raises(ListenError, match="taken"):
        run_daemon(failing, LogSettings())


@pytest.mark.parametrize(
    ("environ", "terminal", "colour"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colour_is_for_terminals_whose_owner_does_not_object(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], terminal: bool, colour: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    def isatty(_descriptor: int) -> bool:
        return terminal

    monkeypatch.setattr(os, "isatty", isatty)

    assert log_settings(LogFormat.TEXT, LogLevel.INFO).colour is colour

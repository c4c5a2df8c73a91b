"""Run a daemon on this process's stderr and signals. Imported by the commands that do, when they run."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs
import trio

from session_proxy.errors import ExitCode
from session_proxy.observability.log_settings import LogFormat, LogLevel, LogSettings
from session_proxy.observability.logging import Log, adopt_foreign_logs, make_logger
from session_proxy.observability.sink import LineSink
from session_proxy.supervision.lifecycle import Lifecycle
from session_proxy.supervision.service import Daemon, ServiceSettings, run_service
from tunnel_relay.background import open_background

STDERR = 2

# What a reader of stderr may take for the last lines before the process ends without them.
PARTING = 1.0


@attrs.frozen(kw_only=True)
class Composition:
    """A daemon and how it is to be run.

    *beside* runs for as long as it does; *on_ready* is called when it accepts clients.
    """

    daemon: Daemon
    settings: ServiceSettings
    lifecycle: Lifecycle
    beside: Callable[[], Awaitable[None]] | None = None
    on_ready: Callable[[], None] = lambda: None


def log_settings(log_format: LogFormat, level: LogLevel) -> LogSettings:
    """Return how to log on this terminal: in colour where it is one and nobody objects (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return LogSettings(log_format=log_format, level=level, colour=not plain and os.isatty(STDERR))


def run_daemon(
    compose: Callable[[Log, LineSink], Composition],
    settings: LogSettings,
    fields: Mapping[str, str | int] | None = None,
) -> ExitCode:
    """Run what *compose* returns until it has drained, logging to stderr; returns what to exit with.

    *fields* are in every line of the log. *compose* is called before the event loop runs, so it may read files and run
    commands.
    """
    sink = LineSink(STDERR)
    log = make_logger(sink.write, settings).bind(**(fields or {}))
    try:
        composition = compose(log, sink)
        # Here, where nobody waits for an answer: it takes some 40 ms.
        gc.collect()
        return trio.run(_serve, composition, sink, log)
    finally:
        sink.finish(PARTING)


async def _serve(composition: Composition, sink: LineSink, log: Log) -> ExitCode:
    def dump(lines: Sequence[str]) -> None:
        for line in lines:
            sink.write(line)

    def on_ready() -> None:
        settle_heap()
        composition.on_ready()

    async with open_background() as background:
        background.start_soon(sink.run)
        if composition.beside is not None:
            background.start_soon(composition.beside)
        with adopt_foreign_logs(log):
            return await run_service(
                composition.daemon,
                composition.settings,
                composition.lifecycle,
                log=log,
                dump=dump,
                on_ready=on_ready,
            )


def settle_heap() -> None:
    """Spare the garbage collector what the start has made and the process keeps: modules, boto3's models.

    Connections make and drop little that is cyclic; with the default thresholds a seventh of the CPU time of
    setting one up went into looking through the heap for it, and a full collection stopped the loop.
    """
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)

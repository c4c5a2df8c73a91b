"""Structured log lines on one sink, as text for people or JSON for machines.

Nothing is configured globally: `make_logger` returns a logger, and `EventLog` turns events into its lines.
Events hold no secrets, so neither do the lines; control characters never reach a terminal.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Generator, Mapping, MutableMapping
from typing import assert_never

import attrs
import structlog
import trio
from structlog.typing import FilteringBoundLogger

from session_proxy.events import (
    ConnectionClosed,
    ConnectionOpened,
    Event,
    LinksChanged,
    Listening,
    Notice,
    UdpAssociationClosed,
    UpstreamDown,
    UpstreamUp,
)
from session_proxy.observability.log_settings import LogFormat, LogSettings

Log = FilteringBoundLogger

# Outcomes that an operator should look at: somebody is turned away, or a way out is gone.
WARNINGS = frozenset({"auth-failed", "limit", "transport-down"})

COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31"}


def make_logger(write: Callable[[str], None], settings: LogSettings) -> Log:
    """Return a logger that hands each line to *write*."""
    as_json = settings.log_format is LogFormat.JSON
    render = render_json if as_json else _TextRenderer(settings.colour)
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    lazy: Log = structlog.wrap_logger(
        _Lines(write),
        processors=[stamp, structlog.processors.add_log_level, render],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level.value),
        context_class=dict,
    )
    # Bound once here, or it would be bound anew for every line.
    return lazy.bind()


@attrs.frozen(eq=False)
class _Lines:
    """What structlog calls at the end: every level goes the same way."""

    msg: Callable[[str], None]

    def __getattr__(self, _level: str) -> Callable[[str], None]:
        return self.msg


def render_json(_logger: object, _method: str, fields: MutableMapping[str, object]) -> str:
    """Render one line of JSON: ``timestamp``, ``level`` and ``event`` first."""
    first = {key: fields.pop(key) for key in ("timestamp", "level", "event")}
    return json.dumps({**first, **fields}, default=str)


@attrs.frozen
class _TextRenderer:
    colour: bool

    def __call__(self, _logger: object, _method: str, fields: MutableMapping[str, object]) -> str:
        timestamp, level, event = (str(fields.pop(key)) for key in ("timestamp", "level", "event"))
        label = f"{level:<7}"
        if self.colour:
            label = f"\x1b[{COLOURS[level]}m{label}\x1b[0m"
        pairs = "".join(f" {key}={quote(value)}" for key, value in fields.items())
        return f"{timestamp} {label} {event}{pairs}"


def quote(value: object) -> str:
    """Return *value* as it stands in a line of text: bare where that is unambiguous, else a JSON string."""
    text = str(value)
    if text and text.isprintable() and not any(c in ' "=' for c in text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


@attrs.frozen(eq=False)
class EventLog:
    """A `Notify` that writes events to a log."""

    log: Log

    def __call__(self, event: Event) -> None:
        """Write the line that *event* deserves, if the level lets it through."""
        match event:
            case ConnectionClosed():
                level = "warning" if event.outcome in WARNINGS else "info"
                self._write(level, "connection", _connection_fields(event))
            case ConnectionOpened():
                self.log.debug("connection opened", id=event.id, client=event.client)
            case UdpAssociationClosed():
                self.log.info(
                    "udp association", **attrs.asdict(event) | {"duration": round(event.duration, 6)}
                )
            case Listening():
                self.log.debug("listening", address=event.address)
            case UpstreamUp():
                self.log.info(
                    "upstream up", upstream=event.upstream, via=event.via, setup=round(event.setup, 3)
                )
            case UpstreamDown():
                retry = {} if event.retry_in is None else {"retry_in": round(event.retry_in, 1)}
                self.log.warning(
                    "upstream down", upstream=event.upstream, via=event.via, reason=event.reason, **retry
                )
            case LinksChanged():
                self.log.debug("links", upstream=event.upstream, links=event.links)
            case Notice():
                self._write(event.level, "notice", {"upstream": event.upstream, "message": event.message})
            case _:
                assert_never(event)

    def _write(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        self.log.log(logging.getLevelNamesMapping()[level.upper()], event, **fields)


def _connection_fields(event: ConnectionClosed) -> dict[str, object]:
    """Return the fields of the one line per connection; what never came to be is left out."""
    fields: dict[str, object] = {
        "id": event.id,
        "client": event.client,
        "protocol": event.protocol,
        "target": None if event.target is None else str(event.target),
        "rule": event.rule or None,
        "upstream": event.upstream or None,
        "sent": event.sent,
        "received": event.received,
        "duration": round(event.duration, 6),
        "connect": None if event.connect_duration is None else round(event.connect_duration, 6),
        "outcome": event.outcome,
        "detail": event.detail or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


class _ForeignLogs(logging.Handler):
    """Hands what libraries log to our log, on Trio's thread, without tracebacks."""

    def __init__(self, log: Log, token: trio.lowlevel.TrioToken) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._token = token

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message}: {record.exc_info[1]!r}"
        with contextlib.suppress(trio.RunFinishedError):
            line = functools.partial(self._log.log, record.levelno, "library", name=record.name, message=message)
            self._token.run_sync_soon(line)


@contextlib.contextmanager
def adopt_foreign_logs(log: Log) -> Generator[None]:
    """Write what libraries log as warnings or worse to *log*, for as long as the block lasts.

    Less important lines are never taken: a library's debug log may show credentials.
    """
    handler = _ForeignLogs(log, trio.lowlevel.current_trio_token())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)

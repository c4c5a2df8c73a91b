"""Structured log lines on one sink, as text for people or JSON for machines.

Nothing is configured globally: `make_logger` returns a logger, and `EventLog` turns events into its lines.
Events hold no secrets, so neither do the lines; control characters never reach a terminal.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
from collections.abc import Callable, Generator, Mapping, MutableMapping
from typing import assert_never

import attrs
import structlog
import trio
from structlog.typing import FilteringBoundLogger

from session_proxy.events import (
    AwgHappened,
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
from session_proxy.observability.awg_log import awg_line
from session_proxy.observability.log_settings import LogFormat, LogSettings

Log = FilteringBoundLogger

# Outcomes that an operator should look at: somebody is turned away, or a way out is gone.
WARNINGS = frozenset({"auth-failed", "limit", "transport-down"})

# Printable ASCII but for the space, the quotation mark and the equals sign.
BARE = re.compile(r"[!#-<>-~]+")

# Made once: json.dumps with a default makes one for every line.
ENCODE = json.JSONEncoder(default=str).encode

NUMBERS = frozenset({int, float})

COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31"}


def make_logger(write: Callable[[str], None], settings: LogSettings) -> Log:
    """Return a logger that hands each line to *write*."""
    as_json = settings.log_format is LogFormat.JSON
    render = render_json if as_json else _TextRenderer.of(colour=settings.colour)
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
    return ENCODE({**first, **fields})


@attrs.frozen
class _TextRenderer:
    labels: Mapping[str, str]

    @classmethod
    def of(cls, *, colour: bool) -> _TextRenderer:
        labels = {level: f"{level:<7}" for level in COLOURS}
        if colour:
            labels = {level: f"\x1b[{COLOURS[level]}m{label}\x1b[0m" for level, label in labels.items()}
        return cls(labels)

    def __call__(self, _logger: object, _method: str, fields: MutableMapping[str, object]) -> str:
        parts = [
            str(fields.pop("timestamp")),
            self.labels[str(fields.pop("level"))],
            str(fields.pop("event")),
        ]
        parts += [f"{key}={quote(value)}" for key, value in fields.items()]
        return " ".join(parts)


def quote(value: object) -> str:
    """Return *value* as it stands in a line of text: bare where that is unambiguous, else a JSON string."""
    text = str(value)
    # Numbers need no look: most values of the line that every connection writes are numbers.
    if value.__class__ in NUMBERS or BARE.fullmatch(text):
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
            case AwgHappened():
                self._write(*awg_line(event))
            case Notice():
                self._write(event.level, "notice", {"upstream": event.upstream, "message": event.message})
            case _:
                assert_never(event)

    def _write(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        self.log.log(logging.getLevelNamesMapping()[level.upper()], event, **fields)


def _connection_fields(event: ConnectionClosed) -> dict[str, object]:
    """Return the fields of the one line per connection; what never came to be is left out."""
    fields: dict[str, object] = {"id": event.id, "client": event.client, "protocol": event.protocol}
    if event.target is not None:
        fields["target"] = str(event.target)
    if event.rule:
        fields["rule"] = event.rule
    if event.upstream:
        fields["upstream"] = event.upstream
    fields["sent"] = event.sent
    fields["received"] = event.received
    fields["duration"] = round(event.duration, 6)
    if event.connect_duration is not None:
        fields["connect"] = round(event.connect_duration, 6)
    fields["outcome"] = event.outcome
    if event.detail:
        fields["detail"] = event.detail
    return fields


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
            line = functools.partial(
                self._log.log, record.levelno, "library", name=record.name, message=message
            )
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

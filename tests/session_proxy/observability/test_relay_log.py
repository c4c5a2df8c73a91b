"""Log lines about a relay."""

from __future__ import annotations

import json

import attrs
import pytest
import trio
from trio.testing import MockClock

from session_proxy.observability.log_settings import LogFormat, LogLevel, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.observability.relay_log import RelayLog
from tests.support.relay_events import (
    ANSWERED,
    LIMIT,
    OPENED,
    ORIGIN,
    REFRESHED,
    SESSION_REFUSED,
    closed,
    rate_exceeded,
    turned_away,
)
from tunnel_relay.server.events import Cause, Ending, RelayEvent

EXPIRED = turned_away(Cause.EXPIRED, 401)
LINES: list[tuple[RelayEvent, str, str, str, dict[str, object]]] = [
    (EXPIRED, "warning", "turned away", "it is expired", {"cause": "expired", "status": 401}),
    (OPENED, "info", "link opened", "the agent 'nas' is linked", {"agent": "nas", "tier": "free"}),
    (
        closed(Ending.LEFT),
        "info",
        "link closed",
        "it left",
        {"agent": "", "ending": "left", "duration": 1.5},
    ),
    (
        closed(Ending.BROKEN),
        "warning",
        "link closed",
        "it broken",
        {"agent": "", "ending": "broken", "duration": 1.5},
    ),
    (REFRESHED, "debug", "token refreshed", "the link goes on", {}),
    (rate_exceeded(), "warning", "rate exceeded", "has to wait", {"act": "open", "wait": 0.5, "times": 1}),
    (LIMIT, "warning", "limit reached", "too many", {"times": 1}),
    (SESSION_REFUSED, "warning", "session refused", "old", {}),
    (ANSWERED, "debug", "open", "done", {"seconds": 0.25}),
]


@pytest.mark.parametrize(("event", "level", "name", "message", "context"), LINES)
async def test_a_line_in_json(
    event: RelayEvent, level: str, name: str, message: str, context: dict[str, object]
) -> None:
    lines: list[str] = []
    settings = LogSettings(log_format=LogFormat.JSON, level=LogLevel.DEBUG)
    RelayLog(make_logger(lines.append, settings))(event)
    line = json.loads(lines[0])
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": level,
        "event": name,
        "message": message,
        "userId": getattr(event, "user", ""),
        "connectionId": "c1",
        "correlationId": "r1",
        "context": {"address": "203.0.113.9", **context},
    }


async def test_a_line_of_text() -> None:
    lines: list[str] = []
    RelayLog(make_logger(lines.append, LogSettings()))(EXPIRED)
    assert lines[0].endswith(
        'turned away message="it is expired" userId="" connectionId=c1 correlationId=r1'
        ' context="address=203.0.113.9 cause=expired status=401"'
    )


async def test_a_flood_is_a_line_a_second(autojump_clock: MockClock) -> None:
    lines: list[str] = []
    log = RelayLog(make_logger(lines.append, LogSettings(log_format=LogFormat.JSON)))
    for _ in range(100):
        log(EXPIRED)
    log(turned_away(Cause.FORGED, 401))
    await trio.sleep(1)
    log(EXPIRED)
    contexts = [json.loads(line)["context"] for line in lines]
    assert [(each["cause"], each.get("repeated")) for each in contexts] == [
        ("expired", None),
        ("forged", None),
        ("expired", 99),
    ]


async def test_what_was_counted_is_written_though_no_more_comes(autojump_clock: MockClock) -> None:
    lines: list[str] = []
    log = RelayLog(make_logger(lines.append, LogSettings(log_format=LogFormat.JSON)))
    for number in range(1, 101):
        log(attrs.evolve(EXPIRED, origin=attrs.evolve(ORIGIN, address=f"2001:db8::{number:x}")))
    log.flush()
    assert len(lines) == 1
    await trio.sleep(1)
    log.flush()
    log(EXPIRED)
    log(EXPIRED)
    log.flush(end=True)
    contexts = [json.loads(line)["context"] for line in lines]
    assert [(each["address"], each.get("repeated")) for each in contexts] == [
        ("2001:db8::1", None),
        ("2001:db8::64", 98),
        ("203.0.113.9", None),
        ("203.0.113.9", None),
    ]


async def test_answers_are_for_who_wants_to_know(autojump_clock: MockClock) -> None:
    lines: list[str] = []
    RelayLog(make_logger(lines.append, LogSettings()))(ANSWERED)
    assert lines == []

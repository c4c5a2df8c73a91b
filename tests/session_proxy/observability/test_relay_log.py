"""Log lines about a relay."""

from __future__ import annotations

import json

import pytest

from session_proxy.observability.log_settings import LogFormat, LogLevel, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.observability.relay_log import RelayLog
from tunnel_relay.policy.rate import Act
from tunnel_relay.server.events import (
    Answered,
    Cause,
    Ending,
    Kind,
    LimitReached,
    LinkClosed,
    LinkOpened,
    Origin,
    RateExceeded,
    RelayEvent,
    SessionRefused,
    TokenRefreshed,
    TurnedAway,
)

ORIGIN = Origin(connection="c1", address="203.0.113.9", correlation="r1")

EVENTS: list[tuple[RelayEvent, str, str, str, dict[str, object]]] = [
    (
        TurnedAway(origin=ORIGIN, cause=Cause.EXPIRED, status=401, detail="the token is expired"),
        "warning",
        "turned away",
        "the token is expired",
        {"cause": "expired", "status": 401},
    ),
    (
        LinkOpened(origin=ORIGIN, user="alice", agent="nas", tier="free"),
        "info",
        "link opened",
        "the agent 'nas' is linked",
        {"agent": "nas", "tier": "free"},
    ),
    (
        LinkClosed(origin=ORIGIN, user="alice", agent=None, ending=Ending.LEFT, detail="bye", duration=1.5),
        "info",
        "link closed",
        "bye",
        {"agent": "", "ending": "left", "duration": 1.5},
    ),
    (
        LinkClosed(origin=ORIGIN, user="alice", agent=None, ending=Ending.BROKEN, detail="no", duration=1.5),
        "warning",
        "link closed",
        "no",
        {"agent": "", "ending": "broken", "duration": 1.5},
    ),
    (TokenRefreshed(origin=ORIGIN, user="alice"), "debug", "token refreshed", "the link goes on", {}),
    (
        RateExceeded(origin=ORIGIN, user="alice", act=Act.OPEN, wait=0.5, refused=False),
        "warning",
        "rate exceeded",
        "has to wait",
        {"act": "open", "wait": 0.5},
    ),
    (
        LimitReached(origin=ORIGIN, user="alice", detail="too many"),
        "warning",
        "limit reached",
        "too many",
        {},
    ),
    (SessionRefused(origin=ORIGIN, user="alice", detail="old"), "warning", "session refused", "old", {}),
    (
        Answered(origin=ORIGIN, user="alice", kind=Kind.OPEN, ok=True, seconds=0.25),
        "debug",
        "open",
        "done",
        {"seconds": 0.25},
    ),
]


@pytest.mark.parametrize(("event", "level", "name", "message", "context"), EVENTS)
def test_a_line_in_json(
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


def test_a_line_of_text() -> None:
    lines: list[str] = []
    RelayLog(make_logger(lines.append, LogSettings()))(EVENTS[0][0])
    assert lines[0].endswith(
        'turned away message="the token is expired" userId="" connectionId=c1 correlationId=r1'
        ' context="address=203.0.113.9 cause=expired status=401"'
    )

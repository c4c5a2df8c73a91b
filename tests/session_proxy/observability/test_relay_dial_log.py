from __future__ import annotations

import json

import pytest

from session_proxy.observability.log_settings import LogFormat, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.observability.relay_dial_log import log_dialing
from tunnel_relay.category import Category
from tunnel_relay.dial_events import (
    AuthenticationNeeded,
    DialEvent,
    DialFailed,
    Linked,
    LinkLost,
    TokenRefreshed,
)

URL = "wss://relay.example"


@pytest.mark.parametrize(
    ("event", "level", "fields"),
    [
        (Linked(URL, 0.12345), "info", {"event": "linked", "relay": URL, "setup": 0.123}),
        (
            LinkLost(URL, "closed", Category.SERVER),
            "warning",
            {"event": "link lost", "relay": URL, "reason": "closed", "category": "server"},
        ),
        (
            DialFailed(URL, "refused", Category.NETWORK, 2.04),
            "warning",
            {
                "event": "relay not reached",
                "relay": URL,
                "reason": "refused",
                "category": "network",
                "retry_in": 2.0,
            },
        ),
        (TokenRefreshed(1.0), "info", {"event": "token refreshed"}),
        (
            AuthenticationNeeded("it expired"),
            "warning",
            {"event": "token needed", "message": "a new token is needed: it expired"},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_event_has_a_line(event: DialEvent, level: str, fields: dict[str, object]) -> None:
    lines: list[str] = []
    log_dialing(make_logger(lines.append, LogSettings(log_format=LogFormat.JSON)), event)
    [line] = [json.loads(line) for line in lines]
    assert line.pop("level") == level
    del line["timestamp"]
    assert line == fields

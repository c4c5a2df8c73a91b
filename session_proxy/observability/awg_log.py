"""The log lines of AmneziaWG sessions. Most are for `LOG_LEVEL=debug`, where a session tells its whole life."""

from __future__ import annotations

from typing import assert_never

from awg_obfs.addresses import shown
from awg_obfs.events import (
    CookieReceived,
    CookieSent,
    DatagramRejected,
    HandshakeAnswered,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeSent,
    LookUpFailed,
    NetworkChanged,
    PathTooNarrow,
    PeerMoved,
    Rebound,
    Reconnecting,
    SendingFailed,
    SessionDown,
    SessionExpired,
    SessionUp,
    UnderLoad,
)
from session_proxy.events import AwgHappened

Line = tuple[str, str, dict[str, object]]
"""A line's level, its event, and its fields."""


def awg_line(happened: AwgHappened) -> Line:
    """Return the line that an event of a session deserves."""
    level, event, fields = _line(happened)
    link = {"link": happened.link} if happened.link else {}
    return level, f"awg {event}", {**link, **fields}


def _line(happened: AwgHappened) -> Line:
    event = happened.event
    match event:
        case HandshakeSent():
            return "debug", "handshake sent", {"to": shown(event.address), "attempt": event.attempt}
        case HandshakeAnswered():
            return "debug", "handshake answered", {"to": shown(event.address)}
        case HandshakeCompleted():
            return (
                "debug",
                "handshake completed",
                {"with": shown(event.address), "role": event.role.name.lower()},
            )
        case HandshakeFailed():
            return "info", "handshake failed", {"reason": event.reason.value}
        case PeerMoved():
            old = {} if event.old is None else {"from": shown(event.old)}
            return "info", "peer moved", {**old, "to": shown(event.new)}
        case SessionExpired():
            return "debug", "keys forgotten", {}
        case DatagramRejected():
            hint = {"hint": event.hint} if event.hint else {}
            fields = {"source": shown(event.source), "size": event.size, "reason": event.reason.value}
            return "debug", "datagram rejected", {**fields, **hint}
        case UnderLoad():
            return "warning", "under load", {}
        case CookieSent():
            return "debug", "cookie sent", {"to": shown(event.address)}
        case CookieReceived():
            return "debug", "cookie received", {}
        case SendingFailed():
            return "warning", "sending failed", {"to": shown(event.address), "reason": event.reason}
        case PathTooNarrow():
            return "warning", "path too narrow", {"to": shown(event.address), "size": event.size}
        case Rebound():
            return "debug", "rebound", {"from": shown(event.old), "to": shown(event.new)}
        case NetworkChanged():
            return "info", "network changed", {"change": event.change.value}
        case SessionUp():
            return "info", "session up", {"with": shown(event.address), "setup": round(event.setup, 3)}
        case SessionDown():
            return "info", "session down", {"reason": event.reason}
        case Reconnecting():
            return "info", "reconnecting", {"reason": event.reason}
        case LookUpFailed():
            return "warning", "look-up failed", {"reason": event.reason}
        case _:
            assert_never(event)

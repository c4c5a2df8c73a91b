"""The log lines of AmneziaWG sessions. Most are for `LOG_LEVEL=debug`, where a session tells its whole life."""

from __future__ import annotations

from typing import assert_never

from awg_obfs.events import (
    CookieReceived,
    CookieSent,
    DatagramRejected,
    HandshakeAnswered,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeSent,
    PeerMoved,
    SessionExpired,
    UnderLoad,
)
from awg_obfs.protocol.address import Address
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
            return "debug", "handshake sent", {"to": text(event.address), "attempt": event.attempt}
        case HandshakeAnswered():
            return "debug", "handshake answered", {"to": text(event.address)}
        case HandshakeCompleted():
            return (
                "debug",
                "handshake completed",
                {"with": text(event.address), "role": event.role.name.lower()},
            )
        case HandshakeFailed():
            return "info", "handshake failed", {"reason": event.reason.value}
        case PeerMoved():
            old = {} if event.old is None else {"from": text(event.old)}
            return "info", "peer moved", {**old, "to": text(event.new)}
        case SessionExpired():
            return "debug", "keys forgotten", {}
        case DatagramRejected():
            hint = {"hint": event.hint} if event.hint else {}
            fields = {"source": text(event.source), "size": event.size, "reason": event.reason.value}
            return "debug", "datagram rejected", {**fields, **hint}
        case UnderLoad():
            return "warning", "under load", {}
        case CookieSent():
            return "debug", "cookie sent", {"to": text(event.address)}
        case CookieReceived():
            return "debug", "cookie received", {}
        case _:
            assert_never(event)


def text(address: Address) -> str:
    """Return *address* as people write it."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

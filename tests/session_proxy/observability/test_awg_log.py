from __future__ import annotations

import typing

import pytest

from awg_obfs.events import SessionEvent
from awg_obfs.protocol.keys import key_to_text
from session_proxy.events import AwgHappened
from session_proxy.observability.awg_log import awg_line
from session_proxy.observability.log_settings import LogLevel, LogSettings
from session_proxy.observability.logging import EventLog, make_logger
from tests.support.awg_events import PEER, SESSION_EVENTS
from tests.support.awg_files import CLIENT_KEY, SERVER_KEY


def happened(event: SessionEvent) -> AwgHappened:
    peer = getattr(event, "peer", None)
    return AwgHappened("" if peer is None else peer.name, event)


@pytest.mark.parametrize(("event", "line"), SESSION_EVENTS, ids=str)
def test_every_event_has_its_line(event: SessionEvent, line: str) -> None:
    lines: list[str] = []
    log = make_logger(lines.append, LogSettings(level=LogLevel.DEBUG))

    EventLog(log)(happened(event))

    assert [" ".join(text.split()[1:]) for text in lines] == [line]


def test_none_is_missing_here() -> None:
    assert {type(event) for event, _ in SESSION_EVENTS} == set(typing.get_args(SessionEvent))


def test_no_line_shows_a_key() -> None:
    keys = {PEER.public_key, CLIENT_KEY, SERVER_KEY}
    for event, _ in SESSION_EVENTS:
        shown = repr(awg_line(happened(event)))
        assert not any(key.hex() in shown or key_to_text(key) in shown or repr(key) in shown for key in keys)

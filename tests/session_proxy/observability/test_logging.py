"""What the log says, line by line."""

from __future__ import annotations

import json
import logging
import re

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

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
from session_proxy.observability.log_settings import LogFormat, LogLevel, LogSettings
from session_proxy.observability.logging import EventLog, adopt_foreign_logs, make_logger, quote
from session_proxy.target import Target

CLOSED = ConnectionClosed(
    id=17,
    client="127.0.0.1:50522",
    protocol="socks5",
    target=Target("example.com", 443),
    rule="routes[0]",
    upstream="dev",
    sent=517,
    received=10342,
    duration=1.20412345,
    connect_duration=0.0512,
    outcome="ok",
)

WHO = "id=17 client=127.0.0.1:50522 protocol=socks5"
WAY = "rule=routes[0] upstream=dev"
HOW_MUCH = "sent=517 received=10342 duration=1.204123"

EVENTS: list[tuple[Event, str]] = [
    (
        CLOSED,
        f"info    connection {WHO} target=example.com:443 {WAY} {HOW_MUCH} connect=0.0512 outcome=ok",
    ),
    (
        attrs.evolve(
            CLOSED,
            target=None,
            rule="",
            upstream="",
            connect_duration=None,
            outcome="auth-failed",
            detail="bad creds",
        ),
        f'warning connection {WHO} {HOW_MUCH} outcome=auth-failed detail="bad creds"',
    ),
    (ConnectionOpened(17, "[::1]:5"), "debug   connection opened id=17 client=[::1]:5"),
    (Listening("127.0.0.1:80"), "debug   listening address=127.0.0.1:80"),
    (
        UdpAssociationClosed(3, "127.0.0.1:9", 1, 2, 0, 0.25),
        "info    udp association id=3 client=127.0.0.1:9 sent=1 received=2 dropped=0 duration=0.25",
    ),
    (UpstreamUp("dev", "i-1", 1.23456), "info    upstream up upstream=dev via=i-1 setup=1.235"),
    (
        UpstreamDown("dev", "i-1", "no answer for 75 s", 2.0),
        'warning upstream down upstream=dev via=i-1 reason="no answer for 75 s" retry_in=2.0',
    ),
    (UpstreamDown("dev", "i-1", "gone", None), "warning upstream down upstream=dev via=i-1 reason=gone"),
    (LinksChanged("dev", 3), "debug   links upstream=dev links=3"),
    (Notice("dev", "new host key", "warning"), 'warning notice upstream=dev message="new host key"'),
]


def logged(event: Event, settings: LogSettings) -> list[str]:
    lines: list[str] = []
    EventLog(make_logger(lines.append, settings))(event)
    return lines


@pytest.mark.parametrize(("event", "expected"), EVENTS)
def test_each_event_is_one_line_of_text(event: Event, expected: str) -> None:
    [line] = logged(event, LogSettings(level=LogLevel.DEBUG))

    timestamp, _, rest = line.partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", timestamp)
    assert rest == expected


@pytest.mark.parametrize(("event", "text"), EVENTS)
def test_each_event_is_one_object_of_json(event: Event, text: str) -> None:
    [line] = logged(event, LogSettings(log_format=LogFormat.JSON, level=LogLevel.DEBUG))

    fields = json.loads(line)
    assert list(fields)[:3] == ["timestamp", "level", "event"]
    assert f"{fields['level']:<7} {fields['event']} " == text[: len(fields["event"]) + 9]


def test_the_line_of_a_connection_has_numbers_in_json() -> None:
    [line] = logged(CLOSED, LogSettings(log_format=LogFormat.JSON))

    fields = json.loads(line)
    assert (fields["id"], fields["sent"], fields["duration"], fields["target"]) == (
        17,
        517,
        1.204123,
        "example.com:443",
    )


@pytest.mark.parametrize(
    ("level", "count"), [(LogLevel.DEBUG, 10), (LogLevel.INFO, 7), (LogLevel.WARNING, 4)]
)
def test_the_level_decides_what_is_written(level: LogLevel, count: int) -> None:
    lines = [line for event, _ in EVENTS for line in logged(event, LogSettings(level=level))]

    assert len(lines) == count


def test_colour_is_of_the_level_only() -> None:
    [line] = logged(CLOSED, LogSettings(colour=True))

    assert "\x1b[32minfo   \x1b[0m connection id=17" in line


@given(st.text())
def test_a_value_never_breaks_the_line_or_steers_the_terminal(text: str) -> None:
    quoted = quote(text)

    assert quoted.isprintable()
    assert quoted == text or json.loads(quoted) == text


async def test_what_libraries_warn_of_is_logged_too() -> None:
    lines: list[str] = []
    log = make_logger(lines.append, LogSettings(level=LogLevel.DEBUG))
    library = logging.getLogger("some.library")

    with adopt_foreign_logs(log):
        library.warning("disk %s", "full")
        library.info("a password, perhaps")
        await trio.to_thread.run_sync(library.error, "from a thread")
        library.error("it went", exc_info=ValueError("boom"))
        await trio.testing.wait_all_tasks_blocked()
    library.warning("after the block", stacklevel=1)

    assert [line.partition(" ")[2] for line in lines] == [
        'warning library name=some.library message="disk full"',
        'error   library name=some.library message="from a thread"',
        "error   library name=some.library message=\"it went: ValueError('boom')\"",
    ]

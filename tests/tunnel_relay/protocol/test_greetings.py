"""What ends tell each other first."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.greetings import (
    MAX_GREETING,
    GoAway,
    Hello,
    Mode,
    Resume,
    Welcome,
    read_go_away,
    read_hello,
    read_resume,
    read_welcome,
    write,
)

TOKEN = "0123456789abcdef" * 2


def test_what_is_written_is_read() -> None:
    hello = Hello(agent="nas", token=TOKEN, fence=1)
    assert read_hello(write(hello)) == hello
    resume = Resume(agent="nas", instance="one", token=TOKEN, fence=2, received=1 << 40)
    assert read_resume(write(resume)) == resume
    welcome = Welcome(instance="one", received=0)
    assert read_welcome(write(welcome)) == welcome
    welcome = Welcome(instance="one", received=0, record="two")
    assert read_welcome(write(welcome)) == welcome
    assert read_welcome(b'{"instance":"one","received":0}') == Welcome(instance="one", received=0)
    word = GoAway(lost=True, detail="gone")
    assert read_go_away(write(word)) == word


@pytest.mark.parametrize("mode", Mode)
def test_who_speaks_ssh_is_said(mode: Mode) -> None:
    hello = Hello(agent="nas", token=TOKEN, fence=1, mode=mode)
    assert read_hello(write(hello)) == hello
    resume = Resume(agent="nas", instance="one", token=TOKEN, fence=2, received=3, mode=mode)
    assert read_resume(write(resume)) == resume


def test_end_to_end_goes_without_saying() -> None:
    assert b"mode" not in write(Hello(agent="nas", token=TOKEN, fence=1))


def test_tokens_do_not_show() -> None:
    for greeting in (
        Hello(agent="nas", token=TOKEN, fence=1),
        Resume(agent="nas", instance="one", token=TOKEN, fence=2, received=0),
    ):
        assert TOKEN not in repr(greeting)


def test_a_detail_is_fit_for_a_terminal() -> None:
    assert read_go_away(write(GoAway(lost=True, detail="no", denied=True))).denied
    assert b"denied" not in write(GoAway(lost=True, detail="no"))
    assert read_go_away(write(GoAway(lost=False, detail="a\x1b[31m\nb"))).detail == "a?[31m?b"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b"[" * 4000,
        b"\xff",
        json.dumps({"agent": 1, "token": TOKEN, "fence": 1}).encode(),
        json.dumps({"agent": "a\nb", "token": TOKEN, "fence": 1}).encode(),
        json.dumps({"agent": "x" * 65, "token": TOKEN, "fence": 1}).encode(),
        json.dumps({"agent": "nas", "token": TOKEN[:-1], "fence": 1}).encode(),
        json.dumps({"agent": "nas", "token": TOKEN, "fence": -1}).encode(),
        json.dumps({"agent": "nas", "token": TOKEN, "fence": True}).encode(),
        json.dumps({"agent": "nas", "token": TOKEN, "fence": 1.5}).encode(),
        json.dumps({"agent": "nas", "token": TOKEN, "fence": 1 << 63}).encode(),
        json.dumps({"agent": "nas", "token": TOKEN, "fence": 1, "mode": "telepathy"}).encode(),
        json.dumps({"agent": "nas", "token": TOKEN, "fence": 1, "mode": ["end-to-end"]}).encode(),
        json.dumps({"agent": "nas", "token": TOKEN, "fence": 1, "mode": None}).encode(),
        b" " * (MAX_GREETING + 1),
    ],
)
def test_what_is_no_greeting_is_refused(payload: bytes) -> None:
    with pytest.raises(RelayProtocolError, match="a greeting"):
        read_hello(payload)


@given(st.binary(max_size=60))
def test_anything_is_a_greeting_or_refused(payload: bytes) -> None:
    for read in (read_hello, read_resume, read_welcome, read_go_away):
        with pytest.raises(RelayProtocolError, match="a greeting"):
            read(payload)


def test_an_agent_need_not_be_named() -> None:
    hello = Hello(agent="", token="0123456789abcdef" * 2, fence=1)
    assert read_hello(write(hello)) == hello

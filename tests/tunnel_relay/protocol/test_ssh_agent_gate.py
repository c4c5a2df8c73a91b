"""What of an ssh-agent is lent, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.protocol.ssh_agent_gate import AgentGate
from tunnel_relay.protocol.ssh_agent_messages import (
    AgentKey,
    failure,
    identities_answer,
    identities_request,
    sign_request,
)
from tunnel_relay.protocol.ssh_fields import string, uint32

KEYS = [AgentKey(b"mine", "me"), AgentKey(b"work", "at work")]
SIGNED = b"\x0e" + string(b"signature")


def test_keys_may_be_seen_and_used() -> None:
    gate = AgentGate()
    assert gate.admits(identities_request())
    assert gate.answer(identities_request(), identities_answer(KEYS)) == identities_answer(KEYS)
    request = sign_request(b"mine", b"data", 0)
    assert gate.admits(request)
    assert gate.answer(request, SIGNED) == SIGNED
    assert gate.answer(request, failure()) == failure()


def test_only_some_keys_may() -> None:
    gate = AgentGate(frozenset({b"work"}))
    answer = gate.answer(identities_request(), identities_answer(KEYS))
    assert answer == identities_answer(KEYS[1:])
    assert gate.admits(sign_request(b"work", b"data", 0))
    assert not gate.admits(sign_request(b"mine", b"data", 0))


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\x0d",
        b"\x0b?",
        b"\x11" + string(b"ssh-ed25519") + string(b"a key to add"),
        b"\x12" + string(b"a key to remove"),
        b"\x13",
        b"\x16" + string(b"a password to lock it with"),
        b"\x1b" + string(b"session-bind@openssh.com"),
        sign_request(b"mine", b"data", 0)[:-1],
    ],
)
def test_nothing_else_may_be_asked(request_: bytes) -> None:
    assert not AgentGate().admits(request_)


@pytest.mark.parametrize("answer", [b"", b"\x06", b"\x0c" + uint32(9), b"\x0e" + uint32(99), SIGNED])
def test_an_agent_that_answers_something_else_has_failed(answer: bytes) -> None:
    assert AgentGate().answer(identities_request(), answer) == failure()


@given(st.binary(max_size=40))
def test_whatever_comes_is_let_through_or_not(message: bytes) -> None:
    gate = AgentGate(frozenset({b"work"}))
    gate.admits(message)
    gate.answer(identities_request(), message)
    gate.answer(sign_request(b"work", b"data", 0), message)

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.protocol.ssh_agent_messages import (
    MAX_MESSAGE,
    AgentKey,
    asks_for_identities,
    failure,
    framed,
    identities_answer,
    identities_request,
    message_length,
    parse_identities,
    parse_sign_request,
    parse_signature,
    sign_request,
)
from tunnel_relay.protocol.ssh_fields import FieldError, string, uint32


def test_requests_are_spelled_as_the_draft_says() -> None:
    assert framed(identities_request()) == b"\0\0\0\1\x0b"
    signing = framed(sign_request(b"k", b"d", 4))
    assert signing == b"\0\0\0\x0f\x0d" + string(b"k") + string(b"d") + uint32(4)


def test_identities_are_parsed_with_their_comments_cleaned() -> None:
    answer = b"\x0c" + uint32(2) + string(b"one") + string(b"me\x1b@host") + string(b"two") + string(b"")
    assert parse_identities(answer) == [AgentKey(b"one", "me @host"), AgentKey(b"two", "")]


def test_a_signature_or_a_refusal() -> None:
    assert parse_signature(b"\x0e" + string(b"sig")) == b"sig"
    assert parse_signature(b"\x05") is None


def test_an_answer_is_spelled_as_it_is_parsed() -> None:
    keys = [AgentKey(b"one", "me@host"), AgentKey(b"two", "")]
    assert parse_identities(identities_answer(keys)) == keys
    assert parse_signature(failure()) is None


def test_what_a_client_asks_for_is_told_apart() -> None:
    assert asks_for_identities(identities_request())
    assert not asks_for_identities(identities_request() + b"?")
    assert parse_sign_request(sign_request(b"k", b"d", 4)) == b"k"
    assert parse_sign_request(identities_request()) is None
    for cut in (b"", b"\x0d", sign_request(b"k", b"d", 4)[:-1]):
        with pytest.raises(FieldError):
            parse_sign_request(cut)


@pytest.mark.parametrize("head", [b"\0\0\0\0", uint32(MAX_MESSAGE + 1), b"HTTP"])
def test_what_is_no_message_of_an_agent_is_refused(head: bytes) -> None:
    with pytest.raises(FieldError):
        message_length(head)


@pytest.mark.parametrize("answer", [b"", b"\x0e", b"\x0c\0\0\0\1", b"\x0c" + uint32(1_000_000)])
def test_malformed_answers_are_refused(answer: bytes) -> None:
    with pytest.raises(FieldError):
        parse_identities(answer)


@given(st.binary(max_size=60))
def test_any_answer_gives_a_value_or_a_field_error(answer: bytes) -> None:
    for parse in (parse_identities, parse_signature):
        with contextlib.suppress(FieldError):
            parse(answer)

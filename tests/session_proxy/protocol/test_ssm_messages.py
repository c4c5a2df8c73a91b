from __future__ import annotations

import json
import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.protocol.ssm_messages import (
    CLIENT_VERSION,
    Acknowledge,
    ActionStatus,
    ChannelClosed,
    HandshakeComplete,
    HandshakeRequest,
    HandshakeResponse,
    MalformedMessageError,
    ProcessedAction,
    RequestedAction,
    open_data_channel,
    version_above,
)

PARSERS: list[Callable[[bytes], object]] = [
    Acknowledge.from_payload,
    ChannelClosed.from_payload,
    HandshakeRequest.from_payload,
    HandshakeResponse.from_payload,
    HandshakeComplete.from_payload,
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from(
    [
        "AcknowledgedMessageSequenceNumber",
        "AcknowledgedMessageId",
        "AgentVersion",
        "RequestedClientActions",
        "ActionType",
        "ActionParameters",
        "ProcessedClientActions",
        "ActionStatus",
        "HandshakeTimeToComplete",
        "CustomerMessage",
        "Errors",
        "Output",
    ]
)


documents = st.dictionaries(KEYS, json_values).map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("parse", PARSERS)
@given(
    payload=st.binary(max_size=50)
    | st.dictionaries(KEYS, json_values).map(lambda value: json.dumps(value).encode())
)
def test_any_payload_is_read_or_malformed(parse: Callable[[bytes], object], payload: bytes) -> None:
    try:
        parse(payload)
    except MalformedMessageError:
        return


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"1", b"x", b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}", b"\xff\xfe"]
)
@pytest.mark.parametrize("parse", PARSERS)
def test_what_is_no_object_is_malformed(parse: Callable[[bytes], object], payload: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        parse(payload)


@pytest.mark.parametrize(
    "message",
    [
        Acknowledge("output_stream_data", str(uuid.UUID(int=3)), 2**63 - 1, sequential=False),
        ChannelClosed(
            session_id="s", output="timed out", destination_id="i-1", message_id="m", created_date="1"
        ),
        HandshakeRequest("3.3.987.0", (RequestedAction("SessionType", "Port", (("portNumber", "22"),)),)),
        HandshakeResponse((ProcessedAction("KMSEncryption", ActionStatus.UNSUPPORTED, "no"),), ("no",)),
        HandshakeResponse((ProcessedAction("SessionType", ActionStatus.SUCCESS),)),
        HandshakeComplete(123, "hello"),
    ],
)
def test_what_is_written_is_read(
    message: Acknowledge | ChannelClosed | HandshakeRequest | HandshakeResponse | HandshakeComplete,
) -> None:
    assert type(message).from_payload(message.to_payload()) == message


def test_keys_are_read_without_regard_to_case() -> None:
    assert HandshakeComplete.from_payload(
        b'{"handshaketimetocomplete":5,"CUSTOMERMESSAGE":"x"}'
    ) == HandshakeComplete(5, "x")


@pytest.mark.parametrize("number", ["true", '"1"', "1.5", "null"])
def test_a_sequence_number_is_an_integer(number: str) -> None:
    with pytest.raises(MalformedMessageError):
        Acknowledge.from_payload(f'{{"AcknowledgedMessageSequenceNumber":{number}}}'.encode())


def test_the_opening_message_claims_a_current_client() -> None:
    text = open_data_channel('to"ken', uuid.UUID(int=1), uuid.UUID(int=2))
    assert json.loads(text)["TokenValue"] == 'to"ken'
    # From 1.1.70 on the agent multiplexes; above 1.2.331.0 it needs no keepalives of ours.
    assert version_above(CLIENT_VERSION, "1.2.331.0")


@pytest.mark.parametrize("version", ["", "3", "3.1.2", "3.1.2.3.4", "a.b.c.d", "3.1.²9999.0", "-3.9.9.9"])
def test_a_version_that_is_not_four_numbers_is_above_nothing(version: str) -> None:
    assert not version_above(version, "0.0.0.0")  # a version, no address

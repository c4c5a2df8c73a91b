from __future__ import annotations

import itertools
import json
import math
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.lab.agent_channel import (
    AgentChannel,
    DataReceived,
    HandshakeDone,
    Origins,
    PortDisconnected,
    SessionEnded,
)
from session_proxy.lab.documents import SSH, PortSession
from session_proxy.lab.faults import Faults
from session_proxy.protocol.ssm_frames import Flag, Frame, MessageType, PayloadType

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/ssm.json").read_text())
SESSION = PortSession(SSH, None, 22)
RESPONSE = (
    b'{"ClientVersion":"1.2.0.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1}]}'
)


def make(faults: Faults | None = None) -> AgentChannel:
    ids = itertools.count(1)
    origins = Origins(new_id=lambda: uuid.UUID(int=next(ids)), wall_clock=lambda: 1_700_000_000_123)
    channel = AgentChannel("sess-0123456789abcdef0", SESSION, faults or Faults(), origins, 0.0)
    channel.attached = True
    return channel


def client_frame(number: int, payload: bytes, kind: int = PayloadType.OUTPUT) -> bytes:
    return Frame(
        message_type=MessageType.INPUT_STREAM_DATA,
        message_id=uuid.UUID(int=number),
        created_date=1,
        sequence_number=number,
        payload_type=kind,
        payload=payload,
    ).encode()


def acknowledgement(number: int) -> bytes:
    payload = json.dumps({"AcknowledgedMessageSequenceNumber": number}).encode()
    return Frame(
        message_type=MessageType.ACKNOWLEDGE, message_id=uuid.UUID(int=0), created_date=1, payload=payload
    ).encode()


def sent(channel: AgentChannel, now: float = 0.0) -> list[Frame]:
    return [Frame.decode(message) for message in channel.messages_to_send(now)]


def acknowledged(frames: list[Frame]) -> list[int]:
    return [
        json.loads(bytes(frame.payload))["AcknowledgedMessageSequenceNumber"]
        for frame in frames
        if frame.message_type == MessageType.ACKNOWLEDGE
    ]


def connected(faults: Faults | None = None) -> AgentChannel:
    """A channel after its handshake, whose port is up; the client's next sequence number is 1."""
    channel = make(faults)
    channel.receive_message(client_frame(0, RESPONSE, PayloadType.HANDSHAKE_RESPONSE), 0.0)
    assert isinstance(channel.next_event(), HandshakeDone)
    sent(channel)
    for number in (0, 1):
        channel.receive_message(acknowledgement(number), 0.0)
    channel.ready = True
    return channel


def deliver(channel: AgentChannel) -> list[bytes]:
    found: list[bytes] = []
    while (event := channel.next_event()) is not None:
        if isinstance(event, DataReceived):
            found.append(event.payload)
            channel.delivered(event)
    return found


def test_the_first_frames_are_the_references() -> None:
    state, request = sent(make())
    expected = VECTORS["agent_handshake"]["ssh"]["frames"]

    for frame, vector in zip((state, request), expected, strict=False):
        says = vector["agent_sends"]
        assert bytes(frame.payload).decode() == says["Payload"].replace("3.3.0.0", "3.3.987.0")
        for name, field in (
            ("Flags", frame.flags),
            ("MessageType", frame.message_type),
            ("PayloadType", frame.payload_type),
            ("SequenceNumber", frame.sequence_number),
        ):
            assert field == says[name], name


@pytest.mark.parametrize("name", ["ssh", "no actions processed", "client says Failed", "not JSON"])
def test_the_handshake_goes_as_the_references(name: str) -> None:
    vector = VECTORS["agent_handshake"][name]
    channel = make()
    answers: list[Frame] = []
    sent(channel)
    for step in vector["frames"]:
        if "client_sends" in step:
            response = step["client_sends"].encode()
            channel.receive_message(client_frame(0, response, PayloadType.HANDSHAKE_RESPONSE), 0.05)
            answers = sent(channel)
    event = channel.next_event()

    expected = [step["agent_sends"] for step in vector["frames"][3:]]
    assert [frame.message_type for frame in answers] == [says["MessageType"] for says in expected]
    match vector["perform_handshake_result"]:
        case "<nil>":
            assert isinstance(event, HandshakeDone)
        case "still waiting":
            assert event is None
        case reason:
            assert event == SessionEnded(reason)


COMPARABLE = [vector for vector in VECTORS["agent_behaviour"] if "handler error" not in vector["name"]]


@pytest.mark.parametrize("vector", COMPARABLE, ids=lambda vector: vector["name"])
def test_frames_are_treated_as_the_reference_does(vector: dict[str, list[dict[str, str]]]) -> None:
    """The vectors begin at 0 with a handshake that is done; ours used number 0, so theirs are one more."""
    channel = connected()
    channel.ready = bool(vector["handler_ready"])
    for step in vector["steps"]:
        message = bytearray.fromhex(step["in_hex"])
        message[48:56] = (int.from_bytes(message[48:56], "big") + 1).to_bytes(8, "big")
        channel.receive_message(bytes(message), 1.0)
        delivered: list[str] = []
        cancelled = False
        while (event := channel.next_event()) is not None:
            if isinstance(event, DataReceived):
                delivered.append(event.payload.decode())
                channel.delivered(event)
            cancelled |= isinstance(event, SessionEnded)

        assert delivered == [piece["payload"] for piece in step["delivered"] or ()]  # type: ignore[index]
        expected = [json.loads(says["Payload"]) for says in step["out"]]  # type: ignore[index]
        assert acknowledged(sent(channel)) == [
            content["AcknowledgedMessageSequenceNumber"] + 1 for content in expected
        ]
        assert cancelled == step["cancelled"]
        assert channel.paused == step["paused"]


def test_data_before_the_end_of_the_handshake_are_acknowledged_and_lost() -> None:
    channel = make()
    sent(channel)
    channel.receive_message(client_frame(0, b"early"), 0.0)

    assert channel.next_event() is None
    assert acknowledged(sent(channel)) == [0]


def test_the_first_data_can_be_refused_on_purpose() -> None:
    channel = connected(Faults(refuse_input=2))
    for _ in range(2):
        channel.receive_message(client_frame(1, b"a"), 0.0)
        assert channel.next_event() is None
        assert sent(channel) == []
    channel.receive_message(client_frame(2, b"b"), 0.0)
    channel.receive_message(client_frame(1, b"a"), 0.0)

    assert deliver(channel) == [b"a", b"b"]
    assert acknowledged(sent(channel)) == [2, 1]


def test_data_are_acknowledged_once_they_are_delivered() -> None:
    channel = connected()
    channel.receive_message(client_frame(1, b"a"), 0.0)
    assert sent(channel) == []

    assert deliver(channel) == [b"a"]
    assert acknowledged(sent(channel)) == [1]


def test_what_the_port_says_is_sent_and_resent_until_acknowledged() -> None:
    channel = connected()
    channel.send_data(b"one")
    channel.send_data(b"")
    channel.send_flag(Flag.CONNECT_TO_PORT_ERROR)
    first = channel.messages_to_send(1.0)

    assert [bytes(Frame.decode(message).payload) for message in first] == [b"one", b"\0\0\0\3"]
    assert channel.unacknowledged == sum(map(len, first))
    assert channel.next_timer() == pytest.approx(1.1)
    channel.handle_timer(1.1)
    assert channel.messages_to_send(1.1) == []
    channel.receive_message(acknowledgement(2), 1.15)
    channel.handle_timer(1.5)
    assert channel.messages_to_send(1.5) == first[1:]
    channel.receive_message(acknowledgement(3), 1.6)
    assert channel.drained
    assert channel.next_timer() == math.inf


def test_without_a_websocket_nothing_is_resent() -> None:
    channel = connected()
    channel.send_data(b"one")
    channel.messages_to_send(1.0)
    channel.attached = False

    assert channel.next_timer() == math.inf
    channel.handle_timer(5.0)
    assert channel.messages_to_send(5.0) == []


def test_pausing_holds_data_back_but_not_acknowledgements() -> None:
    channel = connected()
    pause = Frame(
        message_type=MessageType.PAUSE_PUBLICATION, message_id=uuid.UUID(int=1), created_date=1, payload=b"{}"
    )
    channel.receive_message(pause.encode(), 0.0)
    channel.send_data(b"held")
    assert channel.messages_to_send(0.0) == []
    assert not channel.drained

    channel.receive_message(acknowledgement(77), 0.0)
    assert [bytes(frame.payload) for frame in sent(channel)] == [b"held"]


def test_flags_end_the_connection_or_the_session() -> None:
    channel = connected()
    for number, flag in enumerate((Flag.DISCONNECT_TO_PORT, Flag.CONNECT_TO_PORT_ERROR), 1):
        channel.receive_message(client_frame(number, flag.to_payload(), PayloadType.FLAG), 0.0)
    assert channel.next_event() == PortDisconnected()
    assert channel.next_event() is None
    channel.receive_message(client_frame(3, Flag.TERMINATE_SESSION.to_payload(), PayloadType.FLAG), 0.0)

    assert channel.next_event() == SessionEnded("")
    assert acknowledged(sent(channel)) == [1, 2, 3]


def test_a_handshake_has_fifteen_seconds() -> None:
    channel = make(Faults(no_handshake=True))
    (state,) = sent(channel)
    assert state.message_type == MessageType.AGENT_SESSION_STATE
    assert channel.next_timer() == 15.0
    channel.handle_timer(15.0)
    event = channel.next_event()

    assert isinstance(event, SessionEnded)
    assert event.reason.startswith("Handshake timed out.")
    assert channel.next_timer() == math.inf


@given(st.binary())
def test_no_bytes_do_harm(message: bytes) -> None:
    channel = connected()
    channel.receive_message(message, 0.0)

    assert channel.next_event() is None


@given(st.permutations(range(1, 8)))
def test_order_is_restored_whatever_the_network_did(order: list[int]) -> None:
    channel = connected()
    found: list[bytes] = []
    for number in order:
        channel.receive_message(client_frame(number, b"%d" % number), 0.0)
        found += deliver(channel)

    assert found == [b"%d" % number for number in range(1, 8)]
    assert sorted(acknowledged(sent(channel))) == list(range(1, 8))

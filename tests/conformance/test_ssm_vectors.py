"""Our codec and channel beside AWS's own programs: one test, or more, for every section of ssm.json.

Where we differ on purpose, the test says so and asserts what we do instead; the reasons are in docs/PROTOCOL.md.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterator, Sequence

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from session_proxy.lab.agent_channel import AgentChannel, HandshakeDone, Origins, SessionEnded
from session_proxy.lab.agent_channel import DataReceived as PortData
from session_proxy.lab.documents import SSH, PortSession
from session_proxy.lab.faults import Faults
from session_proxy.protocol import ssm_reliability
from session_proxy.protocol.smux import FIRST_ID, MAX_DATA, Command, Smux, StreamData
from session_proxy.protocol.ssm_channel import Channel, Ended, Event, FlagReceived, HandshakeRefused, Ready
from session_proxy.protocol.ssm_frames import (
    HEADER,
    HEADER_LENGTH,
    UNSEQUENCED_FLAGS,
    Flag,
    Frame,
    MalformedFrameError,
    MessageType,
    PayloadType,
)
from session_proxy.protocol.ssm_messages import (
    CLIENT_VERSION,
    Acknowledge,
    AgentFeatures,
    ChannelClosed,
    HandshakeComplete,
    HandshakeRequest,
    HandshakeResponse,
    MalformedMessageError,
    open_data_channel,
)
from session_proxy.protocol.ssm_reliability import RoundTrip
from tests.support.ssm import (
    VECTORS,
    Vector,
    acknowledged,
    acknowledgement,
    agent_frame,
    data_of,
    events,
    make_channel,
    ready_channel,
    section,
    sent,
    shifted,
    vectors,
)

PUBLICATION = {MessageType.START_PUBLICATION, MessageType.PAUSE_PUBLICATION}
PLUGIN_VERSION = '"ClientVersion":"1.2.0.0"'
OUR_VERSION = f'"ClientVersion":"{CLIENT_VERSION}"'

SECTIONS = {
    "about", "frames", "malformed", "serialise_failures", "service_shaped", "payload_parsing", "acks",
    "open_data_channel", "client_behaviour", "client_sends", "client_ack_processing", "rto", "kms", "version_gates",
    "smux", "constants", "agent_behaviour", "agent_handshake", "agent_sends", "captured_ssh",
    "captured_port_forwarding", "captured_task_complete",
}  # fmt: skip


def test_no_section_goes_unread() -> None:
    assert set(VECTORS) <= SECTIONS


# -- frames


def frame_of(fields: Vector) -> Frame:
    return Frame(
        message_type=fields["MessageType"],
        message_id=uuid.UUID(fields["MessageId"]),
        created_date=fields["CreatedDate"],
        sequence_number=fields["SequenceNumber"],
        flags=fields["Flags"],
        payload_type=fields["PayloadType"],
        payload=bytes.fromhex(fields["PayloadHex"]),
        schema_version=fields["SchemaVersion"],
    )


def assert_decoded(message: bytes, decoded: Vector) -> None:
    frame = Frame.decode(message)
    raw = HEADER.unpack_from(message)
    assert frame.header_length == decoded["HeaderLength"]
    assert (frame.message_type, str(frame.message_id)) == (decoded["MessageType"], decoded["MessageId"])
    assert (frame.created_date, frame.schema_version) == (decoded["CreatedDate"], decoded["SchemaVersion"])
    assert (frame.sequence_number, frame.flags) == (decoded["SequenceNumber"], decoded["Flags"])
    assert raw[7].hex() == decoded["PayloadDigest"]
    assert raw[9] == decoded["PayloadLength"]
    if frame.message_type not in PUBLICATION:
        assert frame.payload.hex() == decoded["PayloadHex"]
    if frame.header_length >= HEADER_LENGTH:
        assert frame.payload_type == decoded["PayloadType"]
    else:
        # The plugin takes the length, which the service put there, for a type.
        assert frame.payload_type == PayloadType.NONE


@pytest.mark.parametrize("vector", vectors("frames"))
def test_frames_are_the_reference_s_byte_for_byte(vector: Vector) -> None:
    message = bytes.fromhex(vector["hex"])
    frame = frame_of(vector["fields"])

    assert frame.encode() == message
    assert_decoded(message, vector["plugin_parse"]["decoded"])
    if frame.message_type not in PUBLICATION:
        assert Frame.decode(message) == frame
    else:
        # Nothing in these can be relied on, so their payload is not even read.
        assert Frame.decode(message).payload == b""


@pytest.mark.parametrize("vector", vectors("malformed"))
def test_malformed_frames_are_dropped_where_the_reference_drops_them_or_dies(vector: Vector) -> None:
    message = bytes.fromhex(vector["hex"])
    plugin: Vector = vector["plugin"]
    name = HEADER.unpack_from(message)[1].rstrip(b"\0 ").decode() if len(message) >= HEADER.size else ""

    if "ok" in plugin:
        assert_decoded(message, plugin["decoded"])
    elif name in PUBLICATION:
        # It panics on a header length that it then has no use for.
        assert Frame.decode(message).payload == b""
    else:
        with pytest.raises(MalformedFrameError):
            Frame.decode(message)

    # Whatever it is, the session survives it. The reference's read loop ends with a panic.
    channel = ready_channel()
    channel.receive_message(message, 1.0)
    channel.receive_message(agent_frame(2, b"still there"), 1.0)
    assert data_of(events(channel)).endswith(b"still there")


@pytest.mark.parametrize("vector", vectors("serialise_failures"))
def test_what_the_reference_cannot_send_is_refused(vector: Vector) -> None:
    payload = b"" if vector["name"] == "empty payload" else b"x"
    kind = "x" * 33 if "33" in vector["name"] else MessageType.INPUT_STREAM_DATA
    if "message id" in vector["name"]:
        # The types rule it out here: a frame has an id.
        return
    with pytest.raises(ValueError, match=r"cannot be sent|at most 32"):
        Frame(message_type=kind, message_id=uuid.UUID(int=1), created_date=1, payload=payload).encode()


@pytest.mark.parametrize("vector", vectors("service_shaped"))
def test_the_service_s_own_frames_are_understood(vector: Vector) -> None:
    message = bytes.fromhex(vector["hex"])
    if "ok" in vector["plugin_parse"]:
        assert_decoded(message, vector["plugin_parse"]["decoded"])

    channel = ready_channel()
    channel.receive_message(message, 1.0)
    ended = [event for event in events(channel) if isinstance(event, Ended)]
    assert bool(ended) == vector["plugin_stops_session"]
    if ended:
        assert ended[0].output == json.loads(message[HEADER_LENGTH:])["Output"]
        assert Frame.decode(message).encode() == message
    assert sent(channel, 1.0) == []


# -- payloads


PARSERS = {
    (MessageType.ACKNOWLEDGE, PayloadType.NONE): Acknowledge.from_payload,
    (MessageType.CHANNEL_CLOSED, PayloadType.NONE): ChannelClosed.from_payload,
    (MessageType.OUTPUT_STREAM_DATA, PayloadType.HANDSHAKE_REQUEST): HandshakeRequest.from_payload,
    (MessageType.OUTPUT_STREAM_DATA, PayloadType.HANDSHAKE_COMPLETE): HandshakeComplete.from_payload,
}


@pytest.mark.parametrize("vector", vectors("payload_parsing"))
def test_payloads_are_read_as_the_reference_reads_them(vector: Vector) -> None:
    payload: bytes = vector["payload"].encode()
    result: Vector = vector["result"]
    if "is not of type" in str(vector["error"]):
        # The channel chooses the parser by the type, so that it never asks a wrong one.
        return
    parse = PARSERS[vector["MessageType"], vector["PayloadType"]]
    if vector["error"] != "<nil>" and vector["MessageType"] != MessageType.CHANNEL_CLOSED:
        with pytest.raises(MalformedMessageError):
            parse(payload)
        return
    found = parse(payload)
    match found:
        case Acknowledge():
            assert found.sequence_number == result["AcknowledgedMessageSequenceNumber"]
            assert found.message_id == result["AcknowledgedMessageId"]
            assert found.sequential == result["IsSequentialMessage"]
        case ChannelClosed():
            # A numeric date does not hide the reason either.
            assert (found.session_id, found.output) == (result["SessionId"], result["Output"])
            assert found.created_date == result["CreatedDate"]
        case HandshakeRequest():
            assert found.agent_version == result["AgentVersion"]
            actions: Sequence[Vector] = result["RequestedClientActions"] or ()
            assert [action.action_type for action in found.actions] == [
                each["ActionType"] for each in actions
            ]
            for action, each in zip(found.actions, actions, strict=True):
                assert dict(action.properties) == each["ActionParameters"]["Properties"]
        case HandshakeComplete():
            assert found.duration == result["HandshakeTimeToComplete"]
            assert found.customer_message == result["CustomerMessage"]


@pytest.mark.parametrize("vector", vectors("acks"))
def test_acknowledgements_are_the_reference_s_byte_for_byte(vector: Vector) -> None:
    ack = Acknowledge.from_payload(vector["payload_json"].encode())
    frame = Frame(
        message_type=MessageType.ACKNOWLEDGE,
        message_id=uuid.UUID(int=1),
        created_date=1,
        flags=UNSEQUENCED_FLAGS,
        payload=ack.to_payload(),
    )

    assert ack.to_payload().decode() == vector["payload_json"]
    assert len(frame.encode()) == vector["total_len"]
    assert frame.message_type == vector["frame_type"]
    assert (frame.sequence_number, frame.flags) == (vector["frame_seq"], vector["frame_flags"])
    assert (frame.payload_type, frame.schema_version) == (
        vector["frame_payload_type"],
        vector["frame_schema"],
    )


def test_the_opening_message_says_what_the_reference_s_says() -> None:
    vector = section("open_data_channel")
    for text in (vector["json"], *(each["text"] for each in vector["sent_by_plugin"])):
        theirs = json.loads(text)
        request = uuid.UUID(theirs["RequestId"])
        ours = json.loads(open_data_channel(theirs["TokenValue"], request, uuid.UUID(int=7)))

        assert list(ours) == list(theirs)
        assert (ours["TokenValue"], ours["RequestId"]) == (theirs["TokenValue"], theirs["RequestId"])
        assert ours["MessageSchemaVersion"] == theirs["MessageSchemaVersion"]
        # Ours is a UUID, as the specification has it, and claims a version above every gate in the agent.
        assert ours["ClientId"] == str(uuid.UUID(int=7))
        assert ours["ClientVersion"] == CLIENT_VERSION
    assert vector["websocket_opcode"] == 1


# -- the client


def improved(payload: str) -> str:
    """Return the plugin's handshake response as we give it: our version, no shell, and its bug mended."""
    response = json.loads(payload.replace(PLUGIN_VERSION, OUR_VERSION))
    for action in response["ProcessedClientActions"]:
        if action["ActionStatus"] == 0:
            # The reference puts the status of an unknown action into its result.
            action |= {"ActionStatus": action["ActionResult"], "ActionResult": None}
    return json.dumps(response, separators=(",", ":"))


def assert_answers(answers: Sequence[Frame], step: Vector) -> None:
    expected: Sequence[Vector] = step["out"] or ()
    assert len(answers) == len(expected)
    for ours, theirs in zip(answers, expected, strict=True):
        assert (ours.message_type, ours.payload_type) == (theirs["MessageType"], theirs["PayloadType"])
        assert (ours.flags, ours.sequence_number) == (theirs["Flags"], theirs["SequenceNumber"])
        if ours.message_type == MessageType.ACKNOWLEDGE:
            assert ours.payload.decode() == theirs["Payload"]
        elif step["session_type"] in ("Port", ""):
            assert ours.payload.decode() == improved(theirs["Payload"])
        else:
            # It takes shells on; we do not.
            response = HandshakeResponse.from_payload(ours.payload)
            assert [action.status for action in response.actions] == [2]
            assert response.errors[0].startswith("Unknown session type")


def assert_state(channel: Channel, happened: Sequence[Event], step: Vector) -> None:
    assert channel.receiving.expected == step["expected_seq_after"]
    assert channel.receiving.buffered == step["buffered"]
    delivered: Sequence[Vector] = step["delivered"] or []
    data = [each["hex"] for each in delivered if each["ptype"] == PayloadType.OUTPUT]
    assert data_of(happened).hex() == "".join(data)
    for each in delivered:
        if each["ptype"] == PayloadType.HANDSHAKE_COMPLETE:
            # One that waited for its turn is still a handshake frame; the reference passes it on as data.
            assert any(isinstance(event, Ready) for event in happened)


@pytest.mark.parametrize("vector", vectors("client_behaviour"))
def test_the_client_behaves_as_the_reference_or_better(vector: Vector) -> None:
    channel = make_channel()
    delivered: set[int] = set()
    for step in vector["steps"]:
        message = bytes.fromhex(step["in_hex"])
        number = HEADER.unpack_from(message)[4]
        channel.receive_message(message, 0.0)
        happened, answers = events(channel), sent(channel, 0.0)

        if number in delivered:
            # The reference is silent, and an agent whose acknowledgement was lost then repeats it for ever.
            assert (step["out"] or [], acknowledged(answers)) == ([], [number])
            continue
        delivered.update(range(channel.receiving.expected))
        assert_answers(answers, step)
        if "invalid character" in step.get("error", ""):
            # It acknowledges a handshake that it cannot read, and then waits for ever. We give up at once.
            assert [type(event) for event in happened] == [HandshakeRefused]
            return
        if "panic" in step:
            # An encryption challenge that nobody asked for is acknowledged and ignored.
            assert (happened, channel.counters().ignored) == ([], 1)
            return
        assert_state(channel, happened, step)


def test_the_client_sends_as_the_reference_but_leaves_line_feeds_alone() -> None:
    vector = section("client_sends")
    channel = ready_channel()
    sends = {
        "Output 'abc'": b"abc",
        "Output LF": b"\n",
        "Output LF LF": b"\n\n",
        "Output CR": b"\r",
        "Output empty -> error": b"",
        "flag DisconnectToPort": Flag.DISCONNECT_TO_PORT,
        "flag TerminateSession": Flag.TERMINATE_SESSION,
    }
    frames: list[Frame] = []
    for call in vector["calls"]:
        match sends[call]:
            case Flag() as flag:
                channel.send_flag(flag)
            case bytes(data):
                channel.send_data(data)
        frames += sent(channel, 1.0)

    # An empty payload is no frame at all.
    assert len(frames) == len(vector["sent"])
    for frame, theirs, call in zip(frames, vector["sent"], vector["calls"], strict=False):
        # Our handshake response had number 0.
        assert frame.sequence_number == theirs["SequenceNumber"] + 1
        assert (frame.message_type, frame.payload_type) == (theirs["MessageType"], theirs["PayloadType"])
        assert (frame.flags, frame.schema_version) == (theirs["Flags"], theirs["SchemaVersion"])
        if call == "Output LF":
            assert theirs["PayloadHex"] == b"\r".hex()
            assert frame.payload == b"\n"
        else:
            assert frame.payload.hex() == theirs["PayloadHex"]


def test_acknowledgements_are_selective() -> None:
    channel = ready_channel(payload=1)
    for step in section("client_ack_processing")["steps"]:
        action, number = step["after"].split()[::-1], 0
        if step["after"].endswith("sends"):
            channel.send_data(bytes(int(action[1])))
            sent(channel, 1.0)
        else:
            number = int(action[0])
            channel.receive_message(acknowledgement(number + 1), 1.0)
        assert [number - 1 for number in channel.sending] == step["unacked"]


@pytest.mark.parametrize("vector", vectors("rto"))
def test_the_timeout_follows_the_reference_s_arithmetic(vector: Vector) -> None:
    round_trip = RoundTrip()
    for step in (vector["initial"], *vector["steps"]):
        if "sample_ms" in step:
            round_trip.sample(step["sample_ms"] / 1000)
        # The reference cuts its nanoseconds off.
        assert round_trip.rtt * 1e9 == pytest.approx(step["rtt_ns"], abs=2)
        assert round_trip.variation * 1e9 == pytest.approx(step["rttvar_ns"], abs=2)
        assert round_trip.timeout * 1e9 == pytest.approx(step["rto_ns"], abs=8)


@pytest.mark.parametrize("vector", vectors("version_gates"))
def test_the_agent_s_version_decides_as_in_the_reference(vector: Vector) -> None:
    features = AgentFeatures.of(vector["agent_version"])

    assert features.terminate_flag == vector["terminate_flag"]
    assert features.multiplexing == vector["tcp_mux"]
    assert features.quiet_multiplexing == vector["smux_keepalive_off"]


def test_the_constants_are_the_reference_s_or_differ_on_purpose() -> None:
    vector = section("constants")

    assert vector["rto_default_ms"] == ssm_reliability.INITIAL_RTO * 1000
    assert vector["rto_max_ms"] == ssm_reliability.MAX_RTO * 1000
    assert vector["clock_granularity_ms"] == ssm_reliability.CLOCK_GRANULARITY * 1000
    assert vector["in_buf"] == ssm_reliability.MAX_REORDERED
    # It drops the oldest frame when its buffer is full. Ours makes the sender wait, long before that.
    assert vector["out_buf"] > ssm_reliability.MAX_UNACKED
    # It wakes every 100 ms for one frame; we keep a deadline. It gives up after 5 minutes; we when the WebSocket
    # cannot be resumed in time.
    assert vector["resend_sleep_ms"] * vector["resend_max_attempt"] == 300_000
    # It pings without looking at the answer, and sends 1 KiB at a time.
    assert vector["ping_interval_s"] > 75
    assert vector["stream_payload"] == 1024


# -- KMS: no port session is encrypted, so this is no part of the product


def test_kms_is_answered_with_unsupported() -> None:
    vector = section("kms")
    request = {
        "AgentVersion": "3.3.987.0",
        "RequestedClientActions": [
            {"ActionType": "SessionType", "ActionParameters": {"SessionType": "Port"}},
            {
                "ActionType": "KMSEncryption",
                "ActionParameters": {"KMSKeyId": vector["generate_data_key"]["KeyId"], "Challenge": "AAEC"},
            },
        ],
    }
    channel = make_channel()
    channel.receive_message(agent_frame(0, json.dumps(request).encode(), PayloadType.HANDSHAKE_REQUEST), 0.0)

    (_, answer) = sent(channel, 0.0)
    response = HandshakeResponse.from_payload(answer.payload)
    assert [(action.action_type, action.status) for action in response.actions] == [
        ("SessionType", 1),
        ("KMSEncryption", 3),
    ]
    assert events(channel) == [HandshakeRefused("Unsupported action KMSEncryption")]


def test_kms_payloads_are_aes_256_gcm_with_the_nonce_in_front() -> None:
    vector = section("kms")
    key = bytes.fromhex(vector["plaintext_data_key_hex"])
    assert (key[:32].hex(), key[32:].hex()) == (
        vector["client_decrypts_with_hex"],
        vector["client_encrypts_with_hex"],
    )
    for each in vector["client_encrypt"]:
        nonce = bytes.fromhex(each["nonce_hex"])
        sealed = nonce + AESGCM(key[32:]).encrypt(nonce, bytes.fromhex(each["plain_hex"]), None)
        assert sealed.hex() == each["cipher_hex"]
        assert len(sealed) - len(each["plain_hex"]) // 2 == each["overhead"]
    for each in vector["client_decrypt"]:
        sealed = bytes.fromhex(each["cipher_hex"])
        if each.get("error") == "<nil>":
            assert AESGCM(key[:32]).decrypt(sealed[:12], sealed[12:], None).hex() == each["plain_hex"]
        else:
            with pytest.raises((InvalidTag, ValueError)):
                AESGCM(key[:32]).decrypt(sealed[:12], sealed[12:], None)


# -- smux


@pytest.mark.parametrize("vector", vectors("smux"))
def test_smux_frames_are_the_reference_s(vector: Vector) -> None:
    smux = Smux()
    while smux.open_stream() < vector["sid"]:
        pass
    opened = smux.data_to_send()
    data = bytes.fromhex(vector.get("data_hex", "00" * vector["len"]))
    match vector["cmd"]:
        case "SYN":
            written = opened[-8:]
        case "PSH":
            smux.send_data(vector["sid"], data)
            written = smux.data_to_send()
        case _:
            smux.close_stream(vector["sid"])
            written = smux.data_to_send()

    assert written.hex() == vector["header_hex"] + data.hex()
    assert min(FIRST_ID, vector["sid"]) == 3
    assert vector["len"] <= MAX_DATA


# -- the agent, played by the lab


SESSION_ID = "sess-0123456789abcdef0"


def make_agent() -> AgentChannel:
    origins = Origins(new_id=uuid.uuid4, wall_clock=lambda: 1_700_000_000_123)
    agent = AgentChannel(SESSION_ID, PortSession(SSH, None, 22), Faults(), origins, 0.0)
    agent.attached = True
    return agent


def agent_sent(agent: AgentChannel) -> list[Frame]:
    return [Frame.decode(message) for message in agent.messages_to_send(0.0)]


def deliver(agent: AgentChannel) -> list[bytes]:
    found: list[bytes] = []
    while (event := agent.next_event()) is not None:
        if isinstance(event, PortData):
            found.append(event.payload)
            agent.delivered(event)
        elif isinstance(event, SessionEnded):
            found.append(b"<ended>")
    return found


def input_frame(number: int, payload: bytes, kind: int) -> bytes:
    return agent_frame(number, payload, kind, MessageType.INPUT_STREAM_DATA)


def connected_agent() -> AgentChannel:
    agent = make_agent()
    response = b'{"ClientVersion":"1.2.0.0","ProcessedClientActions":[]}'
    agent.receive_message(input_frame(0, response, PayloadType.HANDSHAKE_RESPONSE), 0.0)
    assert isinstance(agent.next_event(), HandshakeDone)
    agent_sent(agent)
    agent.ready = True
    return agent


@pytest.mark.parametrize("vector", vectors("agent_behaviour"))
def test_the_lab_s_agent_behaves_as_the_reference(vector: Vector) -> None:
    """The vectors count from 0 after a handshake that is done; the lab's was number 0, so theirs are one more."""
    agent = connected_agent()
    agent.ready = vector["handler_ready"] and "handler error" not in vector["name"]
    for step in vector["steps"]:
        message = bytes.fromhex(step["in_hex"])
        sequenced = Frame.decode(message).message_type in (
            MessageType.INPUT_STREAM_DATA,
            MessageType.OUTPUT_STREAM_DATA,
        )
        agent.receive_message(shifted(message, 1) if sequenced else message, 0.0)
        delivered = deliver(agent)
        answers = agent_sent(agent)

        if step["cancelled"]:
            assert delivered == [b"<ended>"]
            continue
        handed: Sequence[Vector] = step["delivered"] or ()
        assert [each["payload"].encode() for each in handed] == delivered
        assert agent.paused == step["paused"]
        answered: Sequence[Vector] = step["out"] or ()
        numbers = [json.loads(each["Payload"])["AcknowledgedMessageSequenceNumber"] for each in answered]
        assert acknowledged(answers) == [number + 1 for number in numbers]


@pytest.mark.parametrize("vector", vectors("agent_handshake"))
def test_our_handshake_and_the_agent_s_fit(vector: Vector) -> None:
    """Our client against what the agent asks; the lab's agent against what the client answered."""
    shell = vector["encryption_enabled"]
    channel = make_channel()
    agent = make_agent()
    agent_sent(agent)
    for frame in vector["frames"]:
        if "agent_sends" in frame:
            says = frame["agent_sends"]
            message = agent_frame(
                says["SequenceNumber"],
                says["Payload"].encode("latin-1"),
                says["PayloadType"],
                says["MessageType"],
            )
            channel.receive_message(message, 0.0)
        elif "client_sends" in frame and not shell:
            response = frame["client_sends"].encode()
            agent.receive_message(input_frame(0, response, PayloadType.HANDSHAKE_RESPONSE), 0.0)
    happened = events(channel)
    asked = next(
        f["agent_sends"] for f in vector["frames"] if f.get("agent_sends", {}).get("PayloadType") == 5
    )

    if shell:
        # Out of the product's scope: a shell, and its encryption. We refuse both.
        assert isinstance(happened[0], HandshakeRefused)
        assert "KMSEncryption" in happened[0].reason
        return
    assert not [event for event in happened if isinstance(event, HandshakeRefused)]
    response = next(f for f in sent(channel, 0.0) if f.payload_type == PayloadType.HANDSHAKE_RESPONSE)
    assert '"SessionType":"Port"' in asked["Payload"]
    if not vector["cancelled"] and "SessionType" in str(vector["frames"][2:3]):
        assert response.payload.decode() == vector["frames"][2]["client_sends"].replace(
            PLUGIN_VERSION, OUR_VERSION
        )
    assert_agent_concludes(agent, vector)


def assert_agent_concludes(agent: AgentChannel, vector: Vector) -> None:
    event = agent.next_event()
    answers = agent_sent(agent)
    match vector["perform_handshake_result"]:
        case "<nil>":
            assert isinstance(event, HandshakeDone)
            assert [frame.payload_type for frame in answers] == [
                PayloadType.NONE,
                PayloadType.HANDSHAKE_COMPLETE,
            ]
        case "still waiting":
            # What cannot be read is not even acknowledged.
            assert (event, answers) == (None, [])
        case reason:
            assert event == SessionEnded(reason)
            assert acknowledged(answers) == [0]


def test_the_lab_s_agent_sends_as_the_reference() -> None:
    vector = section("agent_sends")
    agent = make_agent()
    request = next(f for f in agent_sent(agent) if f.message_type == MessageType.OUTPUT_STREAM_DATA)
    first, second = vector["sent"]
    assert (request.sequence_number, request.flags) == (first["SequenceNumber"], first["Flags"])

    agent.send_data(b"a")
    agent.send_data(b"")
    (a,) = agent_sent(agent)
    assert (a.flags, a.sequence_number) == (second["Flags"], second["SequenceNumber"])
    assert (a.payload_type, a.message_type) == (second["PayloadType"], second["MessageType"])
    assert a.payload.hex() == first["PayloadHex"]

    pause = agent_frame(0, b"{}", PayloadType.NONE, MessageType.PAUSE_PUBLICATION)
    agent.receive_message(pause, 0.0)
    agent.send_data(b"c")
    assert agent_sent(agent) == []
    assert agent.unacknowledged > len(a.encode())
    start = agent_frame(0, b"{}", PayloadType.NONE, MessageType.START_PUBLICATION)
    agent.receive_message(start, 0.0)
    assert [frame.payload for frame in agent_sent(agent)] == [b"c"]


# -- captured conversations


def conversations(entries: Sequence[Vector]) -> Iterator[list[Vector]]:
    """Cut a capture into sessions; each begins with the client's upgrade request."""
    starts = [i for i, each in enumerate(entries) if each["dir"] == "client>gw" and "http" in each]
    for start, end in itertools.pairwise([*starts, len(entries)]):
        yield list(entries[start:end])


def frames_of(entries: Sequence[Vector], direction: str) -> list[bytes]:
    return [bytes.fromhex(each["hex"]) for each in entries if each["dir"] == direction and "hex" in each]


def filled(frames: Sequence[bytes]) -> Iterator[bytes]:
    """Yield stream frames with the gaps filled: the capture leaves large ones out."""
    expected = 0
    for message in frames:
        frame = Frame.decode(message)
        if frame.message_type not in (MessageType.OUTPUT_STREAM_DATA, MessageType.INPUT_STREAM_DATA):
            continue
        while expected < frame.sequence_number:
            yield agent_frame(expected, b"left out", PayloadType.OUTPUT, frame.message_type)
            expected += 1
        yield message
        expected = max(expected, frame.sequence_number + 1)


@pytest.mark.parametrize("name", ["captured_ssh", "captured_port_forwarding", "captured_task_complete"])
def test_every_captured_frame_survives_our_codec(name: str) -> None:
    found = [bytes.fromhex(entry["hex"]) for entry in section(name) if "hex" in entry]
    assert found
    for entry in section(name):
        if "hex" not in entry:
            continue
        message = bytes.fromhex(entry["hex"])
        frame = Frame.decode(message)
        assert frame.encode() == message
        assert (frame.message_type, frame.sequence_number) == (entry["mtype"], entry["seq"])
        assert (frame.flags, frame.payload_type) == (entry["flags"], entry["ptype"])
        assert (len(frame.payload), frame.schema_version) == (entry["plen"], entry["schema"])
        assert str(frame.message_id) == entry["mid"]


@pytest.mark.parametrize("name", ["captured_ssh", "captured_port_forwarding"])
def test_our_client_in_the_plugin_s_place_answers_as_it_did(name: str) -> None:
    """The agent's side of a capture is played to our channel; its answers are the plugin's."""
    for conversation in conversations(section(name)):
        channel = make_channel()
        from_agent = list(filled(frames_of(conversation, "agent>gw")))
        ours: list[Frame] = []
        happened: list[Event] = []
        for message in from_agent:
            channel.receive_message(message, 0.0)
            happened += events(channel)
            ours += sent(channel, 0.0)
        theirs = [Frame.decode(message) for message in frames_of(conversation, "client>gw")]

        acks = {
            json.loads(f.payload)["AcknowledgedMessageSequenceNumber"]: f for f in ours if f.payload_type == 0
        }
        captured = {
            Frame.decode(m).sequence_number
            for m in frames_of(conversation, "agent>gw")
            if b"output_stream" in m[:40]
        }
        for frame in theirs:
            if frame.message_type == MessageType.ACKNOWLEDGE:
                number = json.loads(frame.payload)["AcknowledgedMessageSequenceNumber"]
                if number in captured:
                    assert acks[number].payload == frame.payload
                    assert acks[number].flags == frame.flags
            elif frame.payload_type == PayloadType.HANDSHAKE_RESPONSE:
                (response,) = [each for each in ours if each.payload_type == PayloadType.HANDSHAKE_RESPONSE]
                assert response.payload.decode() == frame.payload.decode().replace(
                    PLUGIN_VERSION, OUR_VERSION
                )
                assert response.sequence_number == frame.sequence_number
        # Every byte once and in order, a repeated frame notwithstanding.
        assert [event.agent_version for event in happened if isinstance(event, Ready)] == ["3.3.0.0"]
        in_order = {Frame.decode(m).sequence_number: Frame.decode(m) for m in from_agent}
        outputs = [f.payload for _, f in sorted(in_order.items()) if f.payload_type == PayloadType.OUTPUT]
        assert data_of(happened) == b"".join(outputs)


@pytest.mark.parametrize("name", ["captured_ssh", "captured_port_forwarding"])
def test_the_lab_s_agent_in_the_agent_s_place_answers_as_it_did(name: str) -> None:
    for conversation in conversations(section(name)):
        agent = make_agent()
        answers: list[Frame] = agent_sent(agent)
        for message in filled(frames_of(conversation, "client>gw")):
            agent.receive_message(message, 0.0)
            agent.ready = True
            deliver(agent)
            answers += agent_sent(agent)
        ours = [frame.payload for frame in answers if frame.message_type == MessageType.ACKNOWLEDGE]
        captured = {
            Frame.decode(m).sequence_number
            for m in frames_of(conversation, "client>gw")
            if b"input_stream" in m[:40]
        }
        for message in frames_of(conversation, "agent>gw"):
            frame = Frame.decode(message)
            if frame.message_type == MessageType.ACKNOWLEDGE:
                number = json.loads(frame.payload)["AcknowledgedMessageSequenceNumber"]
                assert number not in captured or frame.payload in ours


def test_the_captured_port_forwarding_is_smux() -> None:
    """The client's bytes of the capture, up to the first frame left out, are SYN 3, banner, SYN 5, banner."""
    inputs = [Frame.decode(m) for m in frames_of(section("captured_port_forwarding"), "client>gw")]
    stream = [f for f in inputs if f.payload_type == PayloadType.OUTPUT and f.sequence_number <= 3]
    banner = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10\r\n"
    smux = Smux()
    first = smux.open_stream()
    smux.send_data(first, banner)
    second = smux.open_stream()
    smux.send_data(second, banner)
    assert smux.data_to_send() == b"".join(f.payload for f in stream)

    outputs = [Frame.decode(m) for m in frames_of(section("captured_port_forwarding"), "agent>gw")]
    replies = [
        f.payload for f in outputs if f.payload.startswith(bytes((1, Command.PSH))) and f.payload_type == 1
    ]
    for reply in replies:
        smux.receive_data(reply)
    banners = [smux.next_event() for _ in replies]
    assert [event.data for event in banners if isinstance(event, StreamData)] == [banner, banner]
    assert [event.stream_id for event in banners if isinstance(event, StreamData)] == [first, second]


def test_control_channel_messages_are_not_the_data_channel_s() -> None:
    """`agent_task_complete` travels between agent and service; on a data channel it would be ignored."""
    entries = section("captured_task_complete")
    channel = ready_channel()
    for entry in entries:
        if "hex" in entry:
            channel.receive_message(bytes.fromhex(entry["hex"]), 0.0)
    assert (events(channel), sent(channel, 0.0)) == ([], [])
    assert channel.counters().ignored == sum("hex" in entry for entry in entries)

    statuses = [json.loads(entry["payload"]).get("FinalTaskStatus") for entry in entries]
    assert "Success" in statuses
    complete = next(e for e in entries if e.get("mtype") == "agent_task_complete")
    answer = next(e for e in entries if e.get("mtype") == "agent_task_acknowledge")
    assert json.loads(answer["payload"])["MessageId"] == complete["mid"]


def test_flags_are_never_data() -> None:
    """The plugin writes every payload but the handshake's to its standard output; we tell them apart."""
    channel = ready_channel()
    channel.receive_message(agent_frame(2, Flag.CONNECT_TO_PORT_ERROR.to_payload(), PayloadType.FLAG), 0.0)
    channel.receive_message(agent_frame(3, b"warning", PayloadType.STDERR), 0.0)
    assert events(channel) == [FlagReceived(Flag.CONNECT_TO_PORT_ERROR)]

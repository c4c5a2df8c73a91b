from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_proxy.protocol.ssm_channel import (
    FIRST_DATA_HOLD,
    OTHERS_SHARE,
    DataReceived,
    Ended,
    FlagReceived,
    HandshakeRefused,
    Ready,
)
from session_proxy.protocol.ssm_frames import HEADER, Flag, MessageType, PayloadType
from session_proxy.protocol.ssm_messages import ChannelClosed
from session_proxy.protocol.ssm_reliability import MAX_WINDOW, PROBES
from tests.support.lossy import MirrorAgent, Weather, World
from tests.support.ssm import (
    AGENT_VERSION,
    acknowledged,
    acknowledgement,
    agent_frame,
    data_of,
    events,
    handshake,
    make_channel,
    ready_channel,
    sent,
)


def text(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


# -- the handshake


def test_the_handshake_is_acknowledged_and_answered() -> None:
    channel = make_channel()
    request, complete = handshake(customer_message="hello")
    channel.receive_message(request, 0.0)
    ack, response = sent(channel, 0.0)
    assert acknowledged([ack]) == [0]
    assert (response.payload_type, response.sequence_number) == (PayloadType.HANDSHAKE_RESPONSE, 0)

    channel.receive_message(complete, 0.0)
    assert acknowledged(sent(channel, 0.0)) == [1]
    (event,) = events(channel)
    assert isinstance(event, Ready)
    assert (event.agent_version, event.customer_message) == (AGENT_VERSION, "hello")


def test_no_data_go_before_the_handshake_is_complete() -> None:
    """The agent acknowledges them and throws them away."""
    channel = make_channel()
    channel.send_data(b"SSH-2.0-us")
    request, complete = handshake()
    channel.receive_message(request, 0.0)
    # Not even where the agent itself is early with its own.
    channel.receive_message(agent_frame(1, b"SSH-2.0-them"), 0.0)
    assert PayloadType.OUTPUT not in [frame.payload_type for frame in sent(channel, 100.0)]

    channel = make_channel()
    channel.send_data(b"SSH-2.0-us")
    for message in (request, complete):
        channel.receive_message(message, 0.0)
    assert sent(channel, 0.0)[-1].payload == b"SSH-2.0-us"


@pytest.mark.parametrize("server_speaks", [True, False])
def test_the_first_data_wait_for_the_server_or_a_moment(*, server_speaks: bool) -> None:
    """The agent refuses them until it has connected to its port; an SSH server speaks first."""
    channel = ready_channel(hold=FIRST_DATA_HOLD)
    channel.send_data(b"SSH-2.0-us")
    assert sent(channel, 0.01) == []
    assert channel.next_timer(0.01) == pytest.approx(0.2, abs=0.11)
    now = FIRST_DATA_HOLD
    if server_speaks:
        now = 0.02
        channel.receive_message(agent_frame(2, b"SSH-2.0-them"), now)
    assert b"SSH-2.0-us" in [frame.payload for frame in sent(channel, now)]


def test_an_unreadable_handshake_is_the_end() -> None:
    channel = make_channel()
    channel.receive_message(agent_frame(0, b"x", PayloadType.HANDSHAKE_REQUEST), 0.0)
    (event,) = events(channel)
    assert isinstance(event, HandshakeRefused)
    assert "handshake request is not JSON" in event.reason


def test_an_unreadable_handshake_that_came_early_holds_nothing_up() -> None:
    channel = make_channel()
    channel.receive_message(agent_frame(2, b"data"), 0.0)
    channel.receive_message(agent_frame(1, b"x", PayloadType.HANDSHAKE_COMPLETE), 0.0)
    channel.receive_message(handshake()[0], 0.0)
    assert channel.receiving.expected == 3
    assert data_of(events(channel)) == b"data"


# -- data, flags, the end


def test_a_burst_goes_in_large_frames() -> None:
    channel = ready_channel(payload=16384)
    channel.send_data(text(1, 40000))
    frames = sent(channel, 1.0)
    assert [len(frame.payload) for frame in frames] == [16384, 16384, 40000 - 32768]
    assert b"".join(frame.payload for frame in frames) == text(1, 40000)
    assert [frame.sequence_number for frame in frames] == [1, 2, 3]
    assert not channel.drained
    for number in (1, 2, 3):
        channel.receive_message(acknowledgement(number), 1.1)
    assert channel.drained


def test_unacknowledged_bytes_are_bounded_and_the_rest_waits() -> None:
    channel = ready_channel()
    channel.send_data(bytes(4 * MAX_WINDOW))
    frames = sent(channel, 1.0)
    assert sum(len(frame.payload) for frame in frames) <= 64 * 1024 + 16384
    assert channel.unsent + sum(len(frame.payload) for frame in frames) == 4 * MAX_WINDOW
    assert sent(channel, 1.01) == []


def test_a_flag_overtakes_queued_data() -> None:
    channel = ready_channel()
    channel.send_data(bytes(10 * MAX_WINDOW))
    sent(channel, 1.0)
    channel.send_flag(Flag.TERMINATE_SESSION)
    (frame,) = sent(channel, 1.0)
    assert (frame.payload_type, frame.payload) == (PayloadType.FLAG, b"\0\0\0\2")


def test_flags_and_strange_payloads_never_reach_the_stream() -> None:
    channel = ready_channel()
    channel.receive_message(agent_frame(2, b"\0\0\0\3", PayloadType.FLAG), 0.0)
    channel.receive_message(agent_frame(3, b"\1", PayloadType.EXIT_CODE), 0.0)
    channel.receive_message(agent_frame(4, b"data"), 0.0)
    assert events(channel) == [FlagReceived(Flag.CONNECT_TO_PORT_ERROR), DataReceived(b"data")]
    assert acknowledged(sent(channel, 0.0)) == [2, 3, 4]
    assert channel.counters().ignored == 1


@pytest.mark.parametrize("payload", [ChannelClosed(session_id="s", output="bye").to_payload(), b"nonsense"])
def test_channel_closed_ends_the_session_once_whatever_it_says(payload: bytes) -> None:
    channel = ready_channel()
    message = agent_frame(0, payload, PayloadType.NONE, MessageType.CHANNEL_CLOSED)
    channel.receive_message(message, 0.0)
    channel.receive_message(message, 0.0)
    assert events(channel) == [Ended("bye" if payload != b"nonsense" else "")]
    assert channel.ended


@pytest.mark.parametrize("kind", [MessageType.PAUSE_PUBLICATION, MessageType.START_PUBLICATION, "who_knows"])
def test_other_messages_are_ignored(kind: str) -> None:
    channel = ready_channel()
    channel.receive_message(agent_frame(0, b"{}", PayloadType.NONE, kind), 0.0)
    assert (events(channel), sent(channel, 0.0)) == ([], [])


def test_text_is_read_as_binary_is() -> None:
    # An ASCII frame: no date of ours and hardly a digest are, but what nothing is checked of can be.
    header = HEADER.pack(116, b"pause_publication".ljust(32), 1, 1, 0, 0, bytes(16), bytes(32), 0, 0)
    channel = ready_channel()
    channel.receive_message(header.decode("ascii"), 0.0)
    channel.receive_message("no frame", 0.0)
    assert (channel.counters().ignored, channel.counters().malformed) == (1, 1)


def test_a_frame_that_comes_twice_is_acknowledged_twice_and_delivered_once() -> None:
    channel = ready_channel()
    for _ in range(2):
        channel.receive_message(agent_frame(2, b"once"), 0.0)
        assert acknowledged(sent(channel, 0.0)) == [2]
    assert data_of(events(channel)) == b"once"
    assert channel.counters().duplicates == 1


def test_repeats_are_byte_identical() -> None:
    channel = ready_channel()
    channel.send_data(b"data")
    (first,) = channel.messages_to_send(1.0)
    assert channel.messages_to_send(1.3) == [first]
    channel.reconnected(2.0)
    assert channel.messages_to_send(2.0) == [first]
    assert channel.counters().retransmitted == 2


@given(st.binary(max_size=400))
def test_no_message_breaks_the_channel(message: bytes) -> None:
    channel = ready_channel()
    channel.receive_message(message, 0.0)
    channel.receive_message(agent_frame(2, b"on"), 0.0)
    assert data_of(events(channel)) == b"on"


@settings(max_examples=30)
@given(st.data())
def test_damaged_frames_never_change_what_arrives(data: st.DataObject) -> None:
    channel = ready_channel()
    for number in range(2, 10):
        message = agent_frame(number, bytes([number]) * 50)
        damaged = bytearray(message)
        at = data.draw(st.integers(0, len(message) - 1))
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        # Fields before the payload are not covered by its digest; those that say where it goes are left out.
        if not 40 <= at < 64 and not 112 <= at < 120 and at >= 36:
            channel.receive_message(bytes(damaged), 0.0)
        channel.receive_message(message, 0.0)
    assert data_of(events(channel)) == b"".join(bytes([number]) * 50 for number in range(2, 10))


# -- the pace


def test_acknowledgements_go_first_and_count() -> None:
    channel = ready_channel(frames_per_second=100)
    sent(channel, 50.0)
    channel.send_data(bytes(60000))
    for number in range(2, 5):
        channel.receive_message(agent_frame(number, b"x"), 60.0)
    frames = sent(channel, 60.0)
    assert [frame.message_type for frame in frames] == [MessageType.ACKNOWLEDGE] * 3 + [
        MessageType.INPUT_STREAM_DATA
    ] * 2
    assert channel.next_timer(60.0) == pytest.approx(60.01)


def test_a_full_download_leaves_room_for_what_is_typed() -> None:
    channel = ready_channel(frames_per_second=900)
    typed, number, acks = 0, 2, 0
    now = 10.0
    sent(channel, now)
    while now < 12.0:
        now += 0.001
        channel.receive_message(agent_frame(number, b"x"), now)
        number += 1
        events(channel)
        if not channel.unsent:
            channel.send_data(b"k")
        for frame in sent(channel, now):
            if frame.message_type == MessageType.ACKNOWLEDGE:
                acks += 1
            else:
                typed += 1
                channel.receive_message(acknowledgement(frame.sequence_number), now)
    assert typed >= 1800 / OTHERS_SHARE * 0.9
    assert typed + acks <= 2 * 900 + 45
    assert channel.unacknowledged + acks == number - 2


# -- over a bad link


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.3),
    duplicates=st.floats(0, 0.3),
    delay=st.floats(0.0001, 0.15),
    jitter=st.floats(0, 0.1),
    up=st.integers(0, 120_000),
    down=st.integers(0, 60_000),
    payload=st.sampled_from([100, 1024, 16384]),
)
def test_every_byte_arrives_once_and_in_order(
    seed: int, loss: float, duplicates: float, delay: float, jitter: float, up: int, down: int, payload: int
) -> None:
    weather = Weather(loss=loss, duplicates=duplicates, delay=delay, jitter=jitter)
    world = World(weather, seed=seed, channel=ready_channel(frames_per_second=900, payload=payload))
    world.channel.send_data(text(seed, up))
    world.agent.outgoing += text(seed + 1, down)
    world.run(until=600.0)

    assert world.agent.received == text(seed, up)
    assert world.received == text(seed + 1, down)
    assert world.most_unacked <= MAX_WINDOW + payload + 200


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), start=st.floats(0, 1), length=st.floats(0, 20), reconnect=st.booleans())
def test_an_outage_is_made_up_for_within_seconds(
    seed: int, start: float, length: float, *, reconnect: bool
) -> None:
    """Everything under way is lost, with a new WebSocket afterwards, or without (the agent's was cut)."""
    size = 1_500_000
    end = start + length
    world = World(Weather(down=((start, end),)), seed=seed)
    world.channel.send_data(text(seed, size))
    world.agent.outgoing += text(seed + 1, 100_000)
    world.run_for(end)
    if reconnect:
        world.channel.reconnected(world.now)
    world.run(until=end + 5.0)

    assert world.agent.received == text(seed, size)
    assert world.received == text(seed + 1, 100_000)
    # What is sent twice is no more than was under way, and the probes.
    assert world.sent_bytes < size * 1.1 + 2 * MAX_WINDOW + (length + 10) * 20_000


def test_an_upload_runs_at_the_full_pace() -> None:
    """16 KiB in each of 900 frames a second is 14.7 MB/s; the window opens within a second."""
    size = 45_000_000
    world = World(Weather(delay=0.01), seed=1)
    world.channel.send_data(bytes(size))
    world.run(until=5.0)
    assert len(world.agent.received) == size
    assert size / world.now > 12e6
    assert world.channel.counters().retransmitted == 0


def test_a_download_runs_at_the_agent_s_pace_and_is_never_repeated() -> None:
    """An agent at its fastest, 1 ms a frame; our acknowledgements must not make it believe in losses."""
    size = 800 * 1024 * 3
    world = World(Weather(delay=0.03), seed=1, agent=MirrorAgent(pace=1 / 800))
    world.agent.outgoing += text(1, size)
    world.run(until=6.0)
    assert world.received == text(1, size)
    assert size / world.now > 0.95 * 800 * 1024
    assert world.agent.sending.retransmitted == 0


def test_a_slow_port_is_not_flooded() -> None:
    """The agent acknowledges a frame when its port took it: 20 frames a second here."""
    size = 100 * 16384
    world = World(Weather(), seed=1, agent=MirrorAgent(serve=0.05))
    world.channel.send_data(text(1, size))
    world.run(until=30.0)
    assert world.agent.received == text(1, size)
    assert world.channel.counters().retransmitted <= 2 * PROBES


def test_a_port_that_hangs_for_a_minute_costs_a_probe_a_second() -> None:
    world = World(Weather(), seed=1, agent=MirrorAgent())
    world.channel.send_data(text(1, 3_000_000))
    world.run_for(0.3)
    world.agent.busy_until = 60.0
    world.run(until=70.0)
    assert world.agent.received == text(1, 3_000_000)
    assert world.channel.counters().retransmitted <= 60 + 4 * PROBES


def test_an_agent_that_is_not_ready_gets_the_first_frame_soon_again() -> None:
    """It refuses the first frame, and takes the later ones, until its port is connected."""
    world = World(Weather(), seed=1, agent=MirrorAgent(refuse_until=0.5))
    world.channel.send_data(text(1, 100_000))
    world.run(until=2.0)
    assert world.agent.received == text(1, 100_000)
    assert world.now < 1.0


def test_an_idle_channel_asks_for_nothing() -> None:
    assert ready_channel().next_timer(5.0) == math.inf

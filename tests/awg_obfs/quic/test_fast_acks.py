"""Acknowledgements by the way."""

from __future__ import annotations

import pytest
from aioquic.quic.recovery import QuicPacketSpace

from awg_obfs.quic.fast_acks import ack_frame
from awg_obfs.quic.fast_frames import parse
from tests.support.quic_engines import EnginePair, aioquic_client, aioquic_server, content


def space_with(*ranges: tuple[int, int]) -> QuicPacketSpace:
    space = QuicPacketSpace()
    for start, stop in ranges:
        space.ack_queue.add(start, stop)
    space.largest_received_time = 0.5
    return space


@pytest.mark.parametrize("received", [(0, 1), (7, 9), (0, 1 << 30)])
def test_one_range_is_told_as_it_is(received: tuple[int, int]) -> None:
    frame = ack_frame(space_with(received), 0.75, 3)
    assert parse(frame) == ([], [([received], 31_250)], False)


@pytest.mark.parametrize(
    "space",
    [space_with(), space_with((0, 3), (5, 9)), space_with((0, (1 << 30) + 1))],
    ids=["nothing", "a gap", "numbers too large"],
)
def test_anything_else_is_left_to_aioquic(space: QuicPacketSpace) -> None:
    assert ack_frame(space, 0.75, 3) == b""


def test_ends_that_talk_in_turns_send_nothing_but_their_words() -> None:
    pair = EnginePair(aioquic_client(), aioquic_server())
    pair.connect()
    stream_id = pair.client.open_stream()
    pair.client.send_stream(stream_id, b"hello", end=False)
    pair.run(0.1)
    pair.up.clear()
    pair.down.clear()
    for _ in range(50):
        pair.client.send_stream(stream_id, b"ping", end=False)
        for source, sink in ((pair.client, pair.server), (pair.server, pair.client)):
            if source is pair.server:
                source.send_stream(stream_id, b"pong", end=False)
            datagrams = source.datagrams_to_send(pair.now)
            assert len(datagrams) == 1
            sink.receive(datagrams, pair.now)
        pair.now += 0.0005
        pair.at_client += pair.client.take_events()
    assert content(pair.at_client, stream_id) == b"pong" * 50
    pair.run(0.1)
    assert len(pair.up) == 1

"""Packets of STREAM and ACK frames, read against aioquic's own writing of them."""

from __future__ import annotations

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.packet import push_ack_frame
from aioquic.quic.rangeset import RangeSet
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.quic.fast_frames import OddPacketError, parse


def test_streams_with_and_without_offset_length_and_end() -> None:
    plain = b"\x0a\x04\x03abc" + b"\x0f\x40\x08\x80\x00\x10\x00\x02de" + b"\x0c\x00\x05rest"
    frames, acks, eliciting = parse(plain)
    assert frames == [(4, 0, b"abc", False), (8, 4096, b"de", True), (0, 5, b"rest", False)]
    assert acks == []
    assert eliciting


@given(st.sets(st.integers(0, 500), min_size=1), st.integers(0, 1 << 20))
def test_acknowledgements_are_read_as_they_were_written(numbers: set[int], delay: int) -> None:
    ranges = RangeSet()
    for number in numbers:
        ranges.add(number, number + 1)
    buffer = Buffer(capacity=4096)
    buffer.push_uint8(2)
    push_ack_frame(buffer, ranges, delay, capacity=4096)
    frames, acks, eliciting = parse(buffer.data)
    assert (frames, eliciting) == ([], False)
    assert acks == [([(each.start, each.stop) for each in ranges], delay)]


def test_pings_ask_for_an_answer_and_padding_does_not() -> None:
    assert parse(b"\x00\x00") == ([], [], False)
    assert parse(b"\x01\x00") == ([], [], True)


@pytest.mark.parametrize(
    "plain",
    [b"", b"\x10\x01", b"\x0a\x04\x09abc", b"\x02\x05\x00\x00\x06", b"\x0a\x44"],
    ids=["empty", "MAX_DATA", "a stream cut short", "an ack below zero", "a number cut short"],
)
def test_anything_else_is_left_to_aioquic(plain: bytes) -> None:
    with pytest.raises(OddPacketError):
        parse(plain)


@given(st.binary(max_size=60))
def test_no_packet_raises_anything_else(plain: bytes) -> None:
    try:
        frames, _, _ = parse(plain)
    except (OddPacketError, IndexError):
        return
    assert sum(len(frame[2]) for frame in frames) <= len(plain)

"""Frames as they travel."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.frames import (
    HEADER_LENGTH,
    MAX_PAYLOAD,
    NUMBERED,
    Frame,
    FrameType,
    decode,
    encode,
)

labels = st.integers(0, (1 << 32) - 1)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Return any frame that may be sent."""
    kind = draw(st.sampled_from(FrameType))
    most = (1 << 64) - 1
    number = draw(st.integers(1, most)) if kind in NUMBERED else 0
    if kind is FrameType.ACK:
        number = draw(st.integers(0, most))
    return Frame(kind, draw(labels), draw(labels), number, draw(st.binary(max_size=100)))


@given(st.lists(frames(), max_size=10))
def test_what_is_encoded_is_decoded(sent: list[Frame]) -> None:
    message = encode(sent)
    assert len(message) == sum(map(len, sent))
    assert list(decode(message)) == sent


@given(st.binary(max_size=200))
def test_anything_is_frames_or_refused(message: bytes) -> None:
    try:
        heard = list(decode(message))
    except RelayProtocolError:
        return
    assert encode(heard) == message


def test_a_header_is_what_it_says() -> None:
    frame = Frame(FrameType.DATA, 1, 2, 3, b"payload")
    assert encode([frame]) == bytes.fromhex("08 00 00000001 00000002 0000000000000003 00000007") + b"payload"
    assert "payload" not in repr(frame)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (bytes(HEADER_LENGTH - 1), "header is cut off"),
        (bytes(HEADER_LENGTH), "type 0 with flags 0 is not known"),
        (struct.pack(">BBIIQI", 8, 1, 0, 0, 1, 0), "type 8 with flags 1"),
        (struct.pack(">BBIIQI", 8, 0, 0, 0, 1, 1), "DATA is cut off"),
        (struct.pack(">BBIIQI", 8, 0, 0, 0, 1, MAX_PAYLOAD + 1), "too long for DATA"),
        (struct.pack(">BBIIQI", 8, 0, 0, 0, 0, 0), "DATA with number 0"),
        (struct.pack(">BBIIQI", 16, 0, 0, 0, 5, 0), "PING with number 5"),
    ],
)
def test_what_is_no_frame_is_refused(message: bytes, words: str) -> None:
    with pytest.raises(RelayProtocolError, match=words):
        list(decode(message))


@pytest.mark.parametrize(
    "frame",
    [Frame(FrameType.GOAWAY, 1 << 32), Frame(FrameType.OPEN, 1, 1 << 32, 1), Frame(FrameType.ACK, -1)],
)
def test_numbers_that_have_run_out_are_not_written(frame: Frame) -> None:
    with pytest.raises(RelayProtocolError, match="numbers have run out: "):
        encode([frame])

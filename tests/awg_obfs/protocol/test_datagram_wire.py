from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.errors import WireError
from awg_obfs.protocol.datagram_wire import (
    MAX_PAYLOAD,
    MAX_PIECES,
    Datagram,
    Piece,
    Whole,
    association_number,
    decode_body,
    decode_frame,
    encode_frames,
    encode_varint,
)
from awg_obfs.protocol.reassembly import Reassembly
from awg_obfs.protocol.tunnel_wire import encode_address

DNS = encode_address("192.0.2.53", 53)


def test_a_short_datagram_is_one_frame() -> None:
    """Association (a QUIC integer), form, address type, address, port, payload."""
    (frame,) = encode_frames(7, DNS, b"question", 100, 1)

    assert frame == bytes.fromhex("07 00 01 c0000235 0035") + b"question"
    held = decode_frame(frame)
    assert held == Whole(7, DNS + b"question")
    assert decode_body(held.body) == Datagram("192.0.2.53", 53, b"question")


def test_a_long_datagram_is_frames_of_equal_pieces() -> None:
    """Association, form, number (2 bytes), index, count, then a piece of address and payload together."""
    frames = encode_frames(0x4000, DNS, b"0123456789abc", 16, 0x1_0203)

    assert [frame.hex(" ") for frame in frames] == [
        "80 00 40 00 01 02 03 00 03 01 c0 00 02 35 00 35",
        "80 00 40 00 01 02 03 01 03 30 31 32 33 34 35 36",
        "80 00 40 00 01 02 03 02 03 37 38 39 61 62 63",
    ]
    assert decode_frame(frames[2]) == Piece(0x4000, 0x0203, 2, 3, b"789abc")


@given(
    st.integers(0, (1 << 62) - 1),
    st.binary(max_size=3000),
    st.integers(30, 1300),
    st.integers(0, 1 << 20),
    st.randoms(use_true_random=False),
)
def test_a_datagram_comes_out_as_it_went_in_whatever_the_order_of_its_pieces(
    association: int, payload: bytes, room: int, number: int, rng: object
) -> None:
    frames = encode_frames(association, DNS, payload, room, number)
    if not frames:
        assert len(payload) > (room - 13) * MAX_PIECES - len(DNS)
        return
    assert max(map(len, frames)) <= room
    held = [decode_frame(frame) for frame in frames]
    assert {each.association for each in held} == {association}
    rng.shuffle(held)  # type: ignore[attr-defined]
    reassembly = Reassembly()
    bodies = [each.body if isinstance(each, Whole) else reassembly.add(each, 0.0) for each in held]
    assert bodies[:-1] == [None] * (len(bodies) - 1)
    assert bodies[-1] is not None
    assert decode_body(bodies[-1]) == Datagram("192.0.2.53", 53, payload)


def test_the_longest_datagram_goes_through_the_narrowest_path() -> None:
    assert len(encode_frames(1, DNS, bytes(MAX_PAYLOAD), 1136, 1)) <= 64


def test_what_is_too_long_for_udp_is_not_sent() -> None:
    assert encode_frames(1, DNS, bytes(MAX_PAYLOAD + 1), 1136, 1) == []


def test_what_would_be_too_many_pieces_is_not_sent() -> None:
    assert encode_frames(1, DNS, bytes(3000), 16, 1) == []


@given(st.binary(max_size=64))
def test_whatever_comes_is_a_frame_or_a_wire_error(data: bytes) -> None:
    try:
        datagram = decode_body(decode_frame(data).body)
    except WireError:
        return
    assert data.endswith(datagram.payload)
    assert 0 <= datagram.port <= 0xFFFF
    assert datagram.host


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x40",
        b"\x07",
        b"\x07\2",
        b"\x07\1\0\1\0",
        b"\x07\1\0\1\0\1",
        b"\x07\1\0\1\1\1x",
        b"\x07\1\0\1\0\0x",
    ],
)
def test_frames_that_are_cut_or_impossible_are_refused(frame: bytes) -> None:
    with pytest.raises(WireError):
        decode_frame(frame)


def test_a_datagram_without_its_address_is_refused() -> None:
    with pytest.raises(WireError, match="shorter than its address"):
        decode_body(DNS[:-1])


@pytest.mark.parametrize(
    ("number", "data"),
    [
        (37, "25"),
        (63, "3f"),
        (64, "4040"),
        (15293, "7bbd"),
        (494878333, "9d7f3e7d"),
        (151288809941952652, "c2197c5eff14e88c"),
    ],
)
def test_numbers_are_written_as_rfc_9000_does(number: int, data: str) -> None:
    """RFC 9000, appendix A.1."""
    assert encode_varint(number).hex() == data
    assert decode_frame(bytes.fromhex(data) + b"\0") == Whole(number, b"")


def test_there_are_no_numbers_beyond_quics() -> None:
    with pytest.raises(ValueError, match="2\\^62"):
        encode_varint(1 << 62)


def test_associations_are_numbered_by_the_clients_streams() -> None:
    assert [association_number(stream) for stream in (0, 4, 8, 4000)] == [0, 1, 2, 1000]

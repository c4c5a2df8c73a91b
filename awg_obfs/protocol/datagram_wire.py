"""UDP datagrams in QUIC's DATAGRAM frames, in pieces where they are longer. See docs/PROTOCOL.md.

A frame names the association, says whether it holds a whole datagram or a piece of one, and the rest is the datagram:
its far end's address and its payload, or a piece of the two together.
"""

from __future__ import annotations

import struct

import attrs

from awg_obfs.errors import WireError
from awg_obfs.protocol.tunnel_wire import decode_address

# What fits a UDP datagram of IPv6; one of IPv4 takes 20 bytes less.
MAX_PAYLOAD = 65527

MAX_PIECES = 255

# What a frame holds.
WHOLE = b"\0"
PIECE = b"\1"

# Number, index, count.
_PIECE = struct.Struct(">HBB")
_VARINT_LENGTHS = ((1 << 6, 1, 0x00), (1 << 14, 2, 0x40), (1 << 30, 4, 0x80), (1 << 62, 8, 0xC0))


@attrs.frozen
class Whole:
    """A whole datagram of an association."""

    association: int
    body: bytes = attrs.field(repr=False)


@attrs.frozen
class Piece:
    """The piece *index* of *count* of a datagram; pieces of one datagram have the same *number*, modulo 2^16."""

    association: int
    number: int
    index: int
    count: int
    body: bytes = attrs.field(repr=False)


@attrs.frozen
class Datagram:
    """A datagram to, or from, *host* and *port*."""

    host: str
    port: int
    payload: bytes = attrs.field(repr=False)


def association_number(stream_id: int) -> int:
    """Return the number of the association that was asked for on a stream: its place among the client's streams."""
    return stream_id // 4


def encode_frames(association: int, address: bytes, payload: bytes, room: int, number: int) -> list[bytes]:
    """Return the frames of a datagram, none longer than *room* bytes; empty where it does not fit so many.

    Args:
      association: Its number.
      address: The far end, as `tunnel_wire.encode_address` writes it.
      payload: The datagram.
      room: The longest frame.
      number: What tells the pieces of this datagram from those of others; taken modulo 2^16.

    """
    body = address + payload
    name = encode_varint(association)
    if len(name) + 1 + len(body) <= room:
        return [name + WHOLE + body]
    size = room - len(name) - 1 - _PIECE.size
    if len(payload) > MAX_PAYLOAD or size * MAX_PIECES < len(body):
        return []
    # Equal pieces: none is much longer than it must be.
    count = -(-len(body) // size)
    size = -(-len(body) // count)
    head = name + PIECE
    number &= 0xFFFF
    return [
        head + _PIECE.pack(number, index, count) + body[index * size : (index + 1) * size]
        for index in range(count)
    ]


def decode_frame(frame: bytes) -> Whole | Piece:
    """Return what *frame* holds.

    Raises:
      WireError: nothing that this version knows.

    """
    association, at = _decode_varint(frame)
    form, at = frame[at : at + 1], at + 1
    if form == WHOLE:
        return Whole(association, frame[at:])
    if form != PIECE or len(frame) <= at + _PIECE.size:
        raise WireError("a datagram came in a form that there is not")
    number, index, count = _PIECE.unpack_from(frame, at)
    if index >= count:
        raise WireError("a piece of a datagram has an impossible place")
    return Piece(association, number, index, count, frame[at + _PIECE.size :])


def decode_body(body: bytes) -> Datagram:
    """Return the datagram that *body* holds.

    Raises:
      WireError: it holds none.

    """
    address = decode_address(body, 0)
    if address is None:
        raise WireError("a datagram is shorter than its address")
    host, port, end = address
    return Datagram(host, port, body[end:])


def encode_varint(number: int) -> bytes:
    """Return *number* as QUIC writes it (RFC 9000, section 16)."""
    for limit, length, mark in _VARINT_LENGTHS:
        if number < limit:
            data = bytearray(number.to_bytes(length, "big"))
            data[0] |= mark
            return bytes(data)
    raise ValueError("a number of QUIC is below 2^62")


def _decode_varint(data: bytes) -> tuple[int, int]:
    """Return a number at the start of *data*, and where the rest begins."""
    if data:
        length = 1 << (data[0] >> 6)
        if len(data) >= length:
            return int.from_bytes(data[:length], "big") & ((1 << (8 * length - 2)) - 1), length
    raise WireError("a datagram is too short")

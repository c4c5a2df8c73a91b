"""UDP datagrams in QUIC's DATAGRAM frames, in pieces where they are longer. See docs/PROTOCOL.md.

A frame names the association, says whether it holds a whole datagram or a piece of one, and the rest is the datagram:
its far end's address and its payload, or a piece of the two together.
"""

from __future__ import annotations

import enum
import struct

import attrs

from awg_obfs.errors import WireError
from awg_obfs.protocol.tunnel_wire import decode_address

# What fits a UDP datagram of IPv6; one of IPv4 takes 20 bytes less.
MAX_PAYLOAD = 65527

# QUIC's longest variable-length integer, and the form of a piece.
LARGEST_HEADER = 8 + 5

MAX_PIECES = 255

_PIECE = struct.Struct(">HBB")
_VARINT_LENGTHS = ((1 << 6, 1, 0x00), (1 << 14, 2, 0x40), (1 << 30, 4, 0x80), (1 << 62, 8, 0xC0))


class Form(enum.IntEnum):
    """What a frame holds."""

    WHOLE = 0
    PIECE = 1


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
        return [name + b"\0" + body]
    size = room - len(name) - 1 - _PIECE.size
    if len(payload) > MAX_PAYLOAD or size * MAX_PIECES < len(body):
        return []
    # Equal pieces: none is much longer than it must be.
    count = -(-len(body) // size)
    size = -(-len(body) // count)
    head = name + b"\1"
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
    if form == b"\0":
        return Whole(association, frame[at:])
    if form != b"\1" or len(frame) <= at + _PIECE.size:
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


# Datagrams of one association that are waiting for pieces, and what all their pieces may take: four of the
# longest. Pieces leave together, so a straggler is late by the jitter of the path.
MAX_INCOMPLETE = 16
MAX_WAITING = 4 * MAX_PAYLOAD
PATIENCE = 3.0


@attrs.define(eq=False)
class _Incomplete:
    began: float
    count: int
    pieces: dict[int, bytes] = attrs.field(factory=dict[int, bytes])
    size: int = 0


@attrs.define(eq=False)
class Reassembly:
    """Puts datagrams together again. The oldest are given up for newer ones: UDP may lose, but must not pile up."""

    _incomplete: dict[int, _Incomplete] = attrs.field(factory=dict[int, _Incomplete], init=False, repr=False)
    _size: int = attrs.field(default=0, init=False)
    dropped: int = attrs.field(default=0, init=False)
    """Datagrams given up."""

    def add(self, piece: Piece, now: float) -> bytes | None:
        """Take a piece; return the body of the datagram that it completes."""
        self._give_up_old(now)
        known = self._incomplete.get(piece.number)
        if known is not None and known.count != piece.count:
            # The numbers have gone round.
            self._give_up(piece.number)
            known = None
        if known is None:
            known = self._incomplete[piece.number] = _Incomplete(now, piece.count)
        if piece.index not in known.pieces:
            known.pieces[piece.index] = piece.body
            known.size += len(piece.body)
            self._size += len(piece.body)
        if len(known.pieces) == known.count:
            self._forget(piece.number)
            return b"".join(known.pieces[index] for index in range(known.count))
        while len(self._incomplete) > MAX_INCOMPLETE or self._size > MAX_WAITING:
            self._give_up(next(iter(self._incomplete)))
        return None

    def _give_up_old(self, now: float) -> None:
        while self._incomplete:
            oldest = next(iter(self._incomplete))
            if now - self._incomplete[oldest].began <= PATIENCE:
                return
            self._give_up(oldest)

    def _give_up(self, number: int) -> None:
        self._forget(number)
        self.dropped += 1

    def _forget(self, number: int) -> None:
        self._size -= self._incomplete.pop(number).size

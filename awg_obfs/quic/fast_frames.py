"""Read packets that hold nothing but STREAM and ACK frames (RFC 9000, section 19)."""

from __future__ import annotations

_PADDING, _PING, _ACK = 0x00, 0x01, 0x02
_STREAM, _STREAM_LAST = 0x08, 0x0F
_OFFSET, _LENGTH, _FIN = 4, 2, 1

# stream, offset, data, whether the stream ends there
Frame = tuple[int, int, bytes, bool]
# ranges of packet numbers, ascending, each without its stop; the delay as it was sent
Ack = tuple[list[tuple[int, int]], int]


class OddPacketError(Exception):
    """The packet is for aioquic to deal with."""


def parse(plain: bytes) -> tuple[list[Frame], list[Ack], bool]:
    """Return the STREAM and ACK frames of a packet, and whether it asks for an acknowledgement.

    Raises:
      OddPacketError, IndexError: it holds anything else, or is cut short.

    """
    frames: list[Frame] = []
    acks: list[Ack] = []
    eliciting = False
    size = len(plain)
    at = 0
    while at < size:
        kind = plain[at]
        if _STREAM <= kind <= _STREAM_LAST:
            frame, at = _parse_stream(plain, at)
            frames.append(frame)
            eliciting = True
        elif kind == _ACK:
            ack, at = _parse_ack(plain, at)
            acks.append(ack)
        elif kind == _PING:
            eliciting = True
            at += 1
        elif kind == _PADDING:
            at += 1
        else:
            raise OddPacketError
    if not size:
        raise OddPacketError
    return frames, acks, eliciting


def _parse_stream(plain: bytes, at: int) -> tuple[Frame, int]:
    """Return the STREAM frame at *at*, and where the next frame begins (RFC 9000, section 19.8)."""
    kind = plain[at]
    stream_id, at = _number(plain, at + 1)
    offset, stop = 0, len(plain)
    if kind & _OFFSET:
        offset, at = _number(plain, at)
    if kind & _LENGTH:
        length, at = _number(plain, at)
        stop = at + length
        if stop > len(plain):
            raise OddPacketError
    return (stream_id, offset, plain[at:stop], bool(kind & _FIN)), stop


def _parse_ack(plain: bytes, at: int) -> tuple[Ack, int]:
    """Return the ACK frame at *at*, and where the next frame begins (RFC 9000, section 19.3)."""
    largest, at = _number(plain, at + 1)
    delay, at = _number(plain, at)
    count, at = _number(plain, at)
    first, at = _number(plain, at)
    stop = largest + 1
    start = largest - first
    ranges = [(start, stop)]
    for _ in range(count):
        gap, at = _number(plain, at)
        length, at = _number(plain, at)
        stop = start - gap - 1
        start = stop - length - 1
        ranges.append((start, stop))
    if start < 0:
        raise OddPacketError
    ranges.reverse()
    return (ranges, delay), at


def _number(plain: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at *at*, and what follows it (RFC 9000, section 16)."""
    first = plain[at]
    length = 1 << (first >> 6)
    if length == 1:
        return first, at + 1
    stop = at + length
    if stop > len(plain):
        raise OddPacketError
    return int.from_bytes(plain[at:stop], "big") & ((1 << (8 * length - 2)) - 1), stop

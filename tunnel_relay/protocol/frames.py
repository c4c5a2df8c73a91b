"""What travels in the WebSocket messages of a relay: frames with a fixed header. See docs/PROTOCOL.md.

A message holds one frame or several; a frame lies in one message. The header, in network byte order:

    type (1) · flags (1, zero) · session (4) · stream (4) · number (8) · length of the payload (4)

*session* is a label that only the two ends of one WebSocket agree on; a relay that passes a frame on writes its own.
Session 0 is the WebSocket itself. *number* counts the frames of a session that must not get lost (`NUMBERED`), from 1;
in an ACK it is the last one that has arrived. Everywhere else it is 0.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator

import attrs

from tunnel_relay.errors import RelayProtocolError

Buffer = bytes | bytearray | memoryview

_HEADER = struct.Struct(">BBIIQI")
HEADER_LENGTH = _HEADER.size

# The WebSocket itself, among sessions.
LINK = 0

# Pieces of streams, requests and responses are cut to this; what else is said is shorter.
MAX_PAYLOAD = 64 * 1024


class FrameType(enum.IntEnum):
    """What a frame says."""

    HELLO = 1
    WELCOME = 2
    RESUME = 3
    ACK = 4
    OPEN = 5
    OPENED = 6
    REFUSED = 7
    DATA = 8
    WINDOW = 9
    EOF = 10
    RESET = 11
    REQUEST = 12
    RESPONSE = 13
    REFRESH = 14
    GOAWAY = 15
    PING = 16
    PONG = 17


# What a session keeps until it has arrived, and sends again where a WebSocket was lost.
NUMBERED = frozenset(
    {
        FrameType.OPEN,
        FrameType.OPENED,
        FrameType.REFUSED,
        FrameType.DATA,
        FrameType.WINDOW,
        FrameType.EOF,
        FrameType.RESET,
        FrameType.REQUEST,
        FrameType.RESPONSE,
    }
)
# Those that do not concern a stream: their *stream* is the number of a request (see requests.py).
EXCHANGES = frozenset({FrameType.REQUEST, FrameType.RESPONSE})
_TYPES = {int(kind): kind for kind in FrameType}


@attrs.frozen
class Frame:
    """One frame; see the module for its fields."""

    type: FrameType
    session: int = LINK
    stream: int = 0
    number: int = 0
    payload: Buffer = attrs.field(default=b"", repr=False)

    def __len__(self) -> int:
        return HEADER_LENGTH + len(self.payload)


def encode(frames: Iterable[Frame]) -> bytes:
    """Return the message that holds *frames*.

    Raises:
      RelayProtocolError: a number in one of them is larger than its field: labels and streams run out at last.

    """
    parts: list[Buffer] = []
    for frame in frames:
        try:
            header = _HEADER.pack(
                frame.type, 0, frame.session, frame.stream, frame.number, len(frame.payload)
            )
        except struct.error as exc:
            what = f"{frame.type.name} of session {frame.session}, stream {frame.stream}"
            raise RelayProtocolError(f"numbers have run out: {what}") from exc
        parts += (header, frame.payload)
    return b"".join(parts)


def decode(message: Buffer) -> Iterator[Frame]:
    """Yield the frames of *message*; their payloads are views of it.

    Raises:
      RelayProtocolError: a frame is of no known type, too long, or cut off.

    """
    view = memoryview(message)
    at, end = 0, len(view)
    while at < end:
        if end - at < HEADER_LENGTH:
            raise RelayProtocolError("a frame's header is cut off")
        code, flags, session, stream, number, length = _HEADER.unpack_from(view, at)
        kind = _TYPES.get(code)
        if kind is None or flags:
            raise RelayProtocolError(f"a frame of type {code} with flags {flags} is not known")
        if length > MAX_PAYLOAD:
            raise RelayProtocolError(f"{length} bytes are too long for {kind.name}")
        if (kind in NUMBERED) != bool(number) and kind is not FrameType.ACK:
            raise RelayProtocolError(f"{kind.name} with number {number}")
        at += HEADER_LENGTH
        if end - at < length:
            raise RelayProtocolError(f"{kind.name} is cut off")
        yield Frame(kind, session, stream, number, view[at : at + length])
        at += length

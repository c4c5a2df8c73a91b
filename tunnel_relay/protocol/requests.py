"""What a REQUEST and its RESPONSE say, and how they are cut into frames. See docs/PROTOCOL.md.

A request is a payload for a target, and what the target says to it is the response: both are whole, not streams. Each
is up to 16 MiB long and travels in pieces no longer than those of streams, so that it holds up nothing else. The
frames' *stream* is the number of the request; its first byte tells the piece that begins (1) from those that go on (0).
The first piece has a head, in network byte order, and what fits of the payload:

    REQUEST    length of the payload (4) · most bytes of the response (4) · milliseconds (4) · id · target
    RESPONSE   length of the payload (4) · status (1) · id · detail

Each text is its length (2) and UTF-8. The *id* says which requests are the same, whenever and over whichever session
they come: the far end does such a one once, and answers the others from its record.
"""

from __future__ import annotations

import enum
import struct

import attrs

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.frames import MAX_PAYLOAD, Buffer, FrameType

# The payload of a request, and of a response.
MAX_REQUEST = 16 * 1024 * 1024

MAX_ID = 64
MAX_TARGET = 300
MAX_DETAIL = 255

# What is left to a target, in seconds, unless it is said; and at most.
DEFAULT_TIME = 30.0
MAX_TIME = 24 * 3600.0

# What the response may be long, unless it is said: what may come is set aside at both ends (see exchanges.py).
DEFAULT_MOST = 1024 * 1024

_GOES_ON, _BEGINS = 0, 1
_REQUEST = struct.Struct(">BIII")
_RESPONSE = struct.Struct(">BIB")
_TEXT = struct.Struct(">H")


class Status(enum.IntEnum):
    """What has become of a request. The numbers up to 8 are those of `Reason`."""

    DONE = 0
    """The target has had the payload, and the response is all it said."""
    NOT_ALLOWED = 1
    NO_SUCH_TARGET = 2
    UNREACHABLE = 3
    REFUSED = 4
    TIMED_OUT = 5
    BUSY = 6
    """Nothing was done: there is too much to do; ask again later."""
    BROKEN = 7
    """The connection to the target was reset; it may have had the payload."""
    TOO_LONG = 9
    """The target said more than the request allows."""
    FORGOTTEN = 10
    """The request was done before; what the target said is not kept any more."""
    MISUSED = 11
    """There was another request with this id."""
    FAILED = 12
    """The far end could not do it, for a reason of its own; nothing was done."""


_STATUSES = {int(status): status for status in Status}


@attrs.frozen(kw_only=True)
class Request:
    """A payload for a target.

    Attributes:
      id: Says which requests are the same: up to 64 printable characters of ASCII, no blanks.
      target: Where the payload goes, in a word that the far end knows.
      payload: Up to `MAX_REQUEST` bytes.
      most: How many bytes the response may have; up to `MAX_REQUEST`.
      time: Seconds in which the far end has to have the response, from when it begins.

    """

    id: str = attrs.field()
    target: str = attrs.field()
    payload: Buffer = attrs.field(repr=False)
    most: int = attrs.field(default=DEFAULT_MOST)
    time: float = attrs.field(default=DEFAULT_TIME)

    def __attrs_post_init__(self) -> None:
        fault = _fault_of(self)
        if fault is not None:
            raise ValueError(fault)

    @property
    def cost(self) -> int:
        """How many bytes it may come to at either end, with its response."""
        return len(self.payload) + self.most


@attrs.frozen(kw_only=True)
class Response:
    """What has become of the request with that *id*.

    Attributes:
      id: The request's.
      status: Whether it was done, or why not.
      payload: What the target said; if *status* is not DONE, what it had said until then.
      detail: More about a *status* that is not DONE, for people.

    """

    id: str
    status: Status
    payload: Buffer = attrs.field(default=b"", repr=False)
    detail: str = ""


@attrs.frozen
class Opening:
    """What the first piece says: a request or a response, as far as its payload is in that piece, and the length."""

    length: int
    message: Request | Response


def begins(piece: Buffer) -> bool:
    """Return whether *piece*, the payload of a frame, is the first one of its request."""
    return bytes(piece[:1]) == b"\x01"


@attrs.define(eq=False)
class Cutter:
    """Cuts a request or response into the payloads of frames, one at a time."""

    message: Request | Response
    _at: int = attrs.field(default=0, init=False)
    _begun: bool = attrs.field(default=False, init=False)

    @property
    def kind(self) -> FrameType:
        """The type of its frames."""
        return FrameType.REQUEST if isinstance(self.message, Request) else FrameType.RESPONSE

    @property
    def begun(self) -> bool:
        """Whether there was a piece."""
        return self._begun

    @property
    def done(self) -> bool:
        """Whether there is none left."""
        return self._begun and self._at == len(self.message.payload)

    def next(self) -> bytes:
        """Return the next piece: a copy, that it does not hold all of the payload while it is kept."""
        if self._begun:
            head = bytes((_GOES_ON,))
        else:
            head = _head(self.message)
            self._begun = True
        end = min(self._at + MAX_PAYLOAD - len(head), len(self.message.payload))
        piece = memoryview(self.message.payload)[self._at : end]
        self._at = end
        return b"".join((head, piece))


def read_opening(kind: FrameType, piece: Buffer) -> Opening:
    """Return what the first piece of a request or response says.

    Raises:
      RelayProtocolError: it says nothing of the kind.

    """
    if not begins(piece):
        raise RelayProtocolError(f"a {kind.name} goes on that has not begun")
    layout = _REQUEST if kind is FrameType.REQUEST else _RESPONSE
    reader = _Reader(bytes(piece[: layout.size + 2 * _TEXT.size + MAX_ID + 4 * MAX_TARGET]), layout.size)
    if len(reader.data) < layout.size:
        raise RelayProtocolError(f"the head of a {kind.name} is cut off")
    message: Request | Response
    if kind is FrameType.REQUEST:
        _, length, most, milliseconds = _REQUEST.unpack_from(reader.data)
        identity, target = reader.text(), reader.text()
        payload = bytes(piece[reader.at :])
        try:
            message = Request(
                id=identity, target=target, payload=payload, most=most, time=milliseconds / 1000
            )
        except ValueError as exc:
            raise RelayProtocolError(str(exc)) from exc
    else:
        _, length, code = _RESPONSE.unpack_from(reader.data)
        identity, detail = reader.text(), reader.text()
        status = _STATUSES.get(code, Status.FAILED)
        payload = bytes(piece[reader.at :])
        message = Response(id=identity, status=status, payload=payload, detail=_shown(detail))
    if not len(payload) <= length <= MAX_REQUEST:
        raise RelayProtocolError(f"a {kind.name} of {length} bytes")
    return Opening(int(length), message)


def _head(message: Request | Response) -> bytes:
    length = len(message.payload)
    if isinstance(message, Request):
        milliseconds = max(round(message.time * 1000), 1)
        texts = message.id, message.target
        head = _REQUEST.pack(_BEGINS, length, message.most, milliseconds)
    else:
        texts = message.id, message.detail[:MAX_DETAIL]
        head = _RESPONSE.pack(_BEGINS, length, message.status)
    for text in texts:
        data = text.encode("utf8", "replace")
        head += _TEXT.pack(len(data)) + data
    return head


@attrs.define
class _Reader:
    data: bytes
    at: int

    def text(self) -> str:
        start = self.at + _TEXT.size
        if len(self.data) < start:
            raise RelayProtocolError("the head of a request is cut off")
        self.at = start + int(_TEXT.unpack_from(self.data, self.at)[0])
        if len(self.data) < self.at:
            raise RelayProtocolError("the head of a request is cut off")
        return self.data[start : self.at].decode("utf8", "replace")


def _fault_of(request: Request) -> str | None:
    """Return what is wrong with *request*."""
    identity, target = request.id, request.target
    if not (0 < len(identity) <= MAX_ID and identity.isascii() and identity.isprintable()) or " " in identity:
        return f"the id of a request is 1 to {MAX_ID} printable characters of ASCII, without blanks"
    if not (0 < len(target) <= MAX_TARGET and target.isprintable()):
        return f"the target of a request is 1 to {MAX_TARGET} printable characters"
    if len(request.payload) > MAX_REQUEST:
        return f"a request of {len(request.payload)} bytes is too long: {MAX_REQUEST} at most"
    if not 0 <= request.most <= MAX_REQUEST:
        return f"a response of {request.most} bytes is too long: {MAX_REQUEST} at most"
    if not 0 < request.time <= MAX_TIME:
        return f"a request has more than 0 seconds, and {MAX_TIME:g} at most"
    return None


def _shown(text: str) -> str:
    """Return *text* as it may stand in logs and on terminals."""
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_DETAIL])

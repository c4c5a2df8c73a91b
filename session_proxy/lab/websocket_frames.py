"""The server's side of WebSocket framing (RFC 6455, section 5): bytes in, messages out; no I/O.

The gateway relays a thousand small frames a second for each session, with eight sessions and more. A general
library costs a task switch or two for each of them; this takes all that one read brought at once.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Iterator, Mapping

import attrs

# RFC 6455, section 1.3.
ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# AWS's own limit is unknown (specification, section 16); the plugin was seen to take and send 131 072.
MAX_MESSAGE = 1024 * 1024

# A control frame has 125 bytes at most (section 5.5), and the code takes two.
MAX_REASON = 123

_FINAL = 0x80
_MASKED = 0x80
_RESERVED = 0x70
_LENGTH_16 = 126
_LENGTH_64 = 127
_MASK_SIZE = 4


class Opcode(enum.IntEnum):
    """What a frame is (section 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class WebSocketProtocolError(Exception):
    """The client broke the protocol; *code* is what to close with (section 7.4.1)."""

    def __init__(self, message: str, code: int = 1002) -> None:
        self.code = code
        super().__init__(message)


@attrs.frozen
class Message:
    """A whole message: TEXT or BINARY, or a control frame."""

    opcode: Opcode
    payload: bytes = attrs.field(repr=lambda payload: f"<{len(payload)} bytes>")


def render_upgrade(headers: Mapping[str, str]) -> bytes:
    """Return the answer to an upgrade request with these *headers* (lower-case names).

    Raises:
      WebSocketProtocolError: it is no proper request.

    """
    key = headers.get("sec-websocket-key", "")
    if not key or headers.get("sec-websocket-version") != "13":
        raise WebSocketProtocolError("no RFC 6455 request")
    accept = base64.b64encode(hashlib.sha1((key + ACCEPT_GUID).encode(), usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def encode_frame(opcode: Opcode, payload: bytes) -> bytes:
    """Return one whole message from a server: never masked (section 5.1)."""
    size = len(payload)
    first = bytes((_FINAL | opcode,))
    if size < _LENGTH_16:
        return b"".join((first, bytes((size,)), payload))
    if size < 1 << 16:
        return b"".join((first, bytes((_LENGTH_16,)), size.to_bytes(2, "big"), payload))
    return b"".join((first, bytes((_LENGTH_64,)), size.to_bytes(8, "big"), payload))


def encode_close(code: int, reason: str = "") -> bytes:
    """Return a close frame; *reason* is cut to what fits (section 5.5)."""
    whole_characters = reason.encode()[:MAX_REASON].decode("utf-8", "ignore")
    return encode_frame(Opcode.CLOSE, code.to_bytes(2, "big") + whole_characters.encode())


def _unmask(payload: bytearray, mask: bytearray) -> bytes:
    # As two large numbers: a loop in Python would take a hundred times as long.
    size = len(payload)
    repeated = (mask * (size // _MASK_SIZE + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


class MessageReader:
    """Makes messages of a client's bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._begun: Opcode | None = None
        self._parts: list[bytes] = []
        self._size = 0

    def receive_data(self, data: bytes | bytearray) -> Iterator[Message]:
        """Yield the messages that *data* completes; take them all before the next call.

        Raises:
          WebSocketProtocolError: the client broke the protocol.

        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while (found := self._next_frame(start)) is not None:
                opcode, final, payload, start = found
                message = self._assemble(opcode, final, payload)
                if message is not None:
                    yield message
        finally:
            del buffer[:start]

    def _next_frame(self, start: int) -> tuple[Opcode, bool, bytes, int] | None:
        """Return the frame at *start* of the buffer, and where it ends."""
        buffer = self._buffer
        available = len(buffer) - start
        if available < 2:
            return None
        first, second = buffer[start], buffer[start + 1]
        if first & _RESERVED or not second & _MASKED:
            raise WebSocketProtocolError("a reserved bit, or a frame without a mask")
        length = second & 0x7F
        head = 2
        if length >= _LENGTH_16:
            width = 2 if length == _LENGTH_16 else 8
            if available < head + width:
                return None
            length = int.from_bytes(buffer[start + head : start + head + width], "big")
            head += width
        if length > MAX_MESSAGE:
            raise WebSocketProtocolError("a message is too long", 1009)
        body = start + head + _MASK_SIZE
        end = body + length
        if len(buffer) < end:
            return None
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError as exc:
            raise WebSocketProtocolError("an opcode that there is not") from exc
        payload = _unmask(buffer[body:end], buffer[body - _MASK_SIZE : body])
        return opcode, bool(first & _FINAL), payload, end

    def _assemble(self, opcode: Opcode, final: bool, payload: bytes) -> Message | None:
        if opcode >= Opcode.CLOSE:
            if not final or len(payload) >= _LENGTH_16:
                raise WebSocketProtocolError("a control frame that is fragmented or too long")
            return Message(opcode, payload)
        if (opcode is Opcode.CONTINUATION) is (self._begun is None):
            raise WebSocketProtocolError("a fragment out of place")
        if final and self._begun is None:
            return Message(opcode, payload)
        self._begun = self._begun or opcode
        self._parts.append(payload)
        self._size += len(payload)
        if self._size > MAX_MESSAGE:
            raise WebSocketProtocolError("a message is too long", 1009)
        if not final:
            return None
        message = Message(self._begun, b"".join(self._parts))
        self._begun, self._parts, self._size = None, [], 0
        return message

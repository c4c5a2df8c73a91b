"""WebSocket frames (RFC 6455, section 5.2), as far as they are worth a short way: whole binary messages.

All else, which is rare, stays with a library: `FrameSplitter` cuts it out, one frame at a time.
"""

from __future__ import annotations

import struct

import attrs

FIN_BINARY = 0x82
_FIN = 0x80
_MASKED = 0x80
_OPCODE = 0x0F
_FIRST_CONTROL = 0x08
_LENGTH_16 = 126
_LENGTH_64 = 127


def mask_by_integer(data: bytes, mask: bytes) -> bytes:
    """XOR *data* with *mask* repeated, as one large number: no loop in Python."""
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


try:
    from websockets.speedups import apply_mask
except ImportError:
    apply_mask = mask_by_integer


def binary_frame(data: bytes, mask: bytes | None) -> bytes:
    """Return *data* as a whole binary message, masked with the four bytes of *mask*, as a client must."""
    size = len(data)
    bit = 0 if mask is None else _MASKED
    if size < _LENGTH_16:
        head = bytes((FIN_BINARY, bit | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", FIN_BINARY, bit | _LENGTH_16, size)
    else:
        head = struct.pack("!BBQ", FIN_BINARY, bit | _LENGTH_64, size)
    if mask is None:
        return head + data
    return b"".join((head, mask, apply_mask(data, mask)))


@attrs.frozen
class OtherFrame:
    """The bytes of a frame, or of more than can be told apart, for a library to read."""

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.define(eq=False)
class FrameSplitter:
    """Cuts received bytes into messages and other frames.

    *masked* says whether the peer has to mask (a client does). What breaks the rules is left to the library, from
    there on for good, since it knows how to complain; so are payloads longer than *max_payload*.
    """

    masked: bool
    max_payload: int
    _buffer: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _at: int = attrs.field(default=0, init=False)
    _fragmented: bool = attrs.field(default=False, init=False)
    _given_up: bool = attrs.field(default=False, init=False)

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes from the peer; then call `next_frame` until it returns `None`."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def next_frame(self) -> bytes | OtherFrame | None:
        """Return the next whole binary message, or other frame, or `None` where more bytes are needed."""
        at, buffer = self._at, self._buffer
        available = len(buffer) - at
        if self._given_up:
            return self._cut(available) if available else None
        if available < 2:
            return None
        first, second = buffer[at], buffer[at + 1]
        size, head = second & 0x7F, 2
        if size >= _LENGTH_16:
            head = 4 if size == _LENGTH_16 else 10
            if available < head:
                return None
            size = int.from_bytes(buffer[at + 2 : at + head], "big")
        masked = bool(second & _MASKED)
        if masked != self.masked or size > self.max_payload:
            self._given_up = True
            return self._cut(available)
        head += 4 * masked
        if available < head + size:
            return None
        if first == FIN_BINARY and not self._fragmented:
            return self._message(head, size)
        if first & _OPCODE < _FIRST_CONTROL:
            self._fragmented = not first & _FIN
        return self._cut(head + size)

    def _message(self, head: int, size: int) -> bytes:
        start = self._at + head
        self._at = start + size
        with memoryview(self._buffer) as view:
            payload = bytes(view[start : start + size])
            return apply_mask(payload, bytes(view[start - 4 : start])) if self.masked else payload

    def _cut(self, size: int) -> OtherFrame:
        start = self._at
        self._at += size
        return OtherFrame(bytes(self._buffer[start : self._at]))

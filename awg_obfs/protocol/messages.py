"""The layouts of WireGuard's four messages (paper, section 5.4), from the header on: paddings are not seen here.

The first four bytes are the header value, of which AmneziaWG makes a number out of H1..H4.
"""

from __future__ import annotations

import struct

import attrs

Buffer = bytes | bytearray | memoryview
"""Bytes, whoever owns them."""

# header, receiver index, counter; then the sealed content with its 16-byte tag.
TRANSPORT_HEADER = struct.Struct("<IIQ")
TRANSPORT_HEADER_LENGTH = TRANSPORT_HEADER.size

# What no message undercuts: the reference drops shorter datagrams unseen.
SHORTEST_MESSAGE = 32

MAC_LENGTH = 16
MAC1_FROM_END = 2 * MAC_LENGTH

_INITIATION = struct.Struct("<II32s48s28s")
_RESPONSE = struct.Struct("<III32s16s")
_COOKIE_REPLY = struct.Struct("<II24s32s")
_NO_MACS = bytes(2 * MAC_LENGTH)


@attrs.frozen
class Initiation:
    """The first message: who I am, sealed for the one who holds the static key it is meant for."""

    sender: int
    ephemeral: bytes
    static: bytes = attrs.field(repr=False)
    timestamp: bytes = attrs.field(repr=False)

    def encode(self, header: int) -> bytearray:
        """Return the message with its two MACs still zero."""
        body = _INITIATION.pack(header, self.sender, self.ephemeral, self.static, self.timestamp)
        return bytearray(body + _NO_MACS)

    @classmethod
    def decode(cls, message: bytes) -> Initiation:
        """Read a message of 148 bytes; the MACs are the business of `cookies`."""
        _header, sender, ephemeral, static, timestamp = _INITIATION.unpack_from(message)
        return cls(sender, ephemeral, static, timestamp)


@attrs.frozen
class Response:
    """The answer to an initiation."""

    sender: int
    receiver: int
    ephemeral: bytes
    empty: bytes = attrs.field(repr=False)

    def encode(self, header: int) -> bytearray:
        """Return the message with its two MACs still zero."""
        body = _RESPONSE.pack(header, self.sender, self.receiver, self.ephemeral, self.empty)
        return bytearray(body + _NO_MACS)

    @classmethod
    def decode(cls, message: bytes) -> Response:
        """Read a message of 92 bytes."""
        _header, sender, receiver, ephemeral, empty = _RESPONSE.unpack_from(message)
        return cls(sender, receiver, ephemeral, empty)


@attrs.frozen
class CookieReply:
    """What a device under load answers: prove that you receive at your address, then try again."""

    receiver: int
    nonce: bytes
    cookie: bytes = attrs.field(repr=False)

    def encode(self, header: int) -> bytes:
        """Return the message; it has no MACs."""
        return _COOKIE_REPLY.pack(header, self.receiver, self.nonce, self.cookie)

    @classmethod
    def decode(cls, message: bytes) -> CookieReply:
        """Read a message of 64 bytes."""
        _header, receiver, nonce, cookie = _COOKIE_REPLY.unpack_from(message)
        return cls(receiver, nonce, cookie)

"""What a received datagram is, by its size and header alone (spec, section 6.3)."""

from __future__ import annotations

import enum

from awg_obfs.protocol.messages import SHORTEST_MESSAGE, TRANSPORT_HEADER_LENGTH, Buffer
from awg_obfs.protocol.parameters import Parameters
from awg_obfs.protocol.sizes import COOKIE_REPLY_LENGTH, INITIATION_LENGTH, RESPONSE_LENGTH


class Kind(enum.Enum):
    """The types of messages, and the two ways of being none."""

    TOO_SMALL = "too_small"
    INITIATION = "init"
    RESPONSE = "response"
    COOKIE_REPLY = "cookie"
    TRANSPORT = "transport"
    UNKNOWN = "unknown"


class Classifier:
    """Knows a device's paddings and header ranges. Junk and signature packets look like anything else to it."""

    __slots__ = ("_handshakes", "_parameters", "sizes")

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._handshakes = (
            (parameters.s1 + INITIATION_LENGTH, parameters.s1, parameters.h1, Kind.INITIATION),
            (parameters.s2 + RESPONSE_LENGTH, parameters.s2, parameters.h2, Kind.RESPONSE),
            (parameters.s3 + COOKIE_REPLY_LENGTH, parameters.s3, parameters.h3, Kind.COOKIE_REPLY),
        )
        # A datagram of any other size is transport or nothing.
        self.sizes = frozenset(size for size, *_ in self._handshakes)

    def classify(self, datagram: Buffer) -> tuple[Kind, int]:
        """Return what *datagram* is, and how many bytes of padding precede the message."""
        size = len(datagram)
        if size < SHORTEST_MESSAGE:
            return Kind.TOO_SMALL, 0
        for expected, padding, headers, kind in self._handshakes:
            if size == expected and header_at(datagram, padding) in headers:
                return kind, padding
        padding = self._parameters.s4
        if size >= padding + TRANSPORT_HEADER_LENGTH and header_at(datagram, padding) in self._parameters.h4:
            return Kind.TRANSPORT, padding
        return Kind.UNKNOWN, 0


def header_at(datagram: Buffer, offset: int) -> int:
    """Return the header value that stands at *offset*."""
    return int.from_bytes(datagram[offset : offset + 4], "little")

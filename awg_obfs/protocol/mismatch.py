"""Which parameter a datagram that we did not recognise hints at.

Two sides whose parameters differ hear nothing from each other, and that is all their users see. But what was sent can
often be recognised all the same: MAC1 fits wherever the message begins and whatever its header is, and nobody but a
peer knows our indices.
"""

from __future__ import annotations

import re

from awg_obfs.protocol.classify import header_at
from awg_obfs.protocol.cookies import MacVerifier
from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.indices import IndexTable
from awg_obfs.protocol.messages import Buffer
from awg_obfs.protocol.parameters import Parameters
from awg_obfs.protocol.sizes import (
    COOKIE_REPLY_LENGTH,
    INITIATION_LENGTH,
    KEEPALIVE_LENGTH,
    RESPONSE_LENGTH,
    TRANSPORT_OVERHEAD,
)

# How far into a datagram one of our indices is looked for. Nobody pads each packet by more.
LONGEST_PADDING = 256

# Random bytes fall into wider ranges so often that a header in its range proves nothing.
TELLING_WIDTH = 1 << 22

PRESHARED_KEYS_DIFFER = "the preshared keys differ"

DIFFERENT_KEY = re.compile(r"\b([sh][1-4]) of the sender")
UNPADDED = "a keepalive without"


class Mismatch:
    """Knows what a device expects, to say what the sender of something else must have set otherwise."""

    __slots__ = ("_handshakes", "_indices", "_parameters", "_verifier")

    def __init__(self, parameters: Parameters, verifier: MacVerifier, indices: IndexTable) -> None:
        self._parameters = parameters
        self._verifier = verifier
        self._indices = indices
        self._handshakes = (
            ("an initiation", INITIATION_LENGTH, "1", parameters.s1, parameters.h1),
            ("a response", RESPONSE_LENGTH, "2", parameters.s2, parameters.h2),
        )

    def hint(self, datagram: Buffer) -> str:
        """Return in one line what may be set wrong; "" if nothing points to anything, as with junk."""
        received = bytes(datagram)
        return (
            self._handshake_for_us(received)
            or self._in_a_session(received)
            or self._cookie_reply(received)
            or self._looks_like_a_handshake(received)
        )

    def _handshake_for_us(self, datagram: bytes) -> str:
        for name, length, number, padding, headers in self._handshakes:
            offset = len(datagram) - length
            if offset >= 0 and self._verifier.mac1_fits(datagram[offset:]):
                return _differences(f"{name} made for us", datagram, offset, number, padding, headers)
        return ""

    def _in_a_session(self, datagram: bytes) -> str:
        keypairs, parameters = self._indices.keypairs, self._parameters
        for offset in range(min(len(datagram) - TRANSPORT_OVERHEAD, LONGEST_PADDING) + 1):
            if header_at(datagram, offset + 4) not in keypairs:
                continue
            if offset == 0 and parameters.s4 and len(datagram) == KEEPALIVE_LENGTH:
                return (
                    f"{UNPADDED} the {parameters.s4} bytes of s4, as the reference sends them: "
                    "set keepalive_padding = true on the other side"
                )
            name = "a packet of one of our sessions"
            return _differences(name, datagram, offset, "4", parameters.s4, parameters.h4)
        return ""

    def _cookie_reply(self, datagram: bytes) -> str:
        offset = len(datagram) - COOKIE_REPLY_LENGTH
        if offset < 0 or self._indices.peer_of(header_at(datagram, offset + 4)) is None:
            return ""
        name = "a cookie reply for us"
        return _differences(name, datagram, offset, "3", self._parameters.s3, self._parameters.h3)

    def _looks_like_a_handshake(self, datagram: bytes) -> str:
        for name, length, number, padding, headers in self._handshakes:
            offset = len(datagram) - length
            if offset < 0:
                continue
            header = header_at(datagram, offset)
            if offset == padding and header not in headers:
                return (
                    f"as long as {name} with s{number} = {padding}, but its header {header} is outside "
                    f"h{number} = {headers}, and it was not made for our public key"
                )
            if offset != padding and header in headers and headers.width <= TELLING_WIDTH:
                return (
                    f"a header of h{number} where {name} with s{number} = {offset} has it (ours is {padding}), "
                    "but not made for our public key"
                )
        return ""


def _differences(
    name: str, datagram: bytes, offset: int, number: str, padding: int, headers: HeaderRange
) -> str:
    header = header_at(datagram, offset)
    differences: list[str] = []
    if offset != padding:
        differences.append(f"s{number} of the sender is {offset}, ours {padding}")
    if header not in headers:
        differences.append(f"h{number} of the sender has {header}, ours is {headers}")
    return f"{name}: {', '.join(differences)}" if differences else ""


def advice(hint: str) -> str:
    """Return what *hint* says of a server that we have asked, and what to do; "" where anybody can have caused it.

    What counts are hints that rest on an index of ours, or on MAC1 with our public key: not on a length or a header.
    """
    if hint.startswith(PRESHARED_KEYS_DIFFER):
        return f"{PRESHARED_KEYS_DIFFER}; make preshared_key the same on both sides"
    if hint.startswith(UNPADDED):
        return f"it sent {hint}"
    keys = DIFFERENT_KEY.findall(hint)
    if keys:
        return f"{hint.partition(': ')[2]}; make {' and '.join(keys)} the same on both sides"
    return ""

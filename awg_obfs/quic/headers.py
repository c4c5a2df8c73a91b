"""What can be read of a QUIC datagram without its keys (RFC 8999; RFC 9000, section 17), and one datagram of our own.

The datagrams travel inside a session that authenticates every one of them, so a peer may say plainly that it does not
know a connection. QUIC's stateless reset says the same to strangers, and needs a secret kept for it.
"""

from __future__ import annotations

import attrs

from awg_obfs.quic.engine import Buffer

# What both ends choose for the identifiers of their connections.
CONNECTION_ID_LENGTH = 8

_LONG_HEADER = 0x80
_FIXED_BIT = 0x40
_TYPE_BITS = 0xF0
_INITIAL = 0xC0
# First byte, version and the length of the destination's identifier.
_DESTINATION = 6

# QUIC version 1 sets the fixed bit in every datagram; this one lacks it. It must not begin with zero, which sessions
# may use as fill.
_NOTICE = b"\x01forgotten"
NOTICE_LENGTH = len(_NOTICE) + CONNECTION_ID_LENGTH


# QUIC's datagrams have a first byte of this or more.
LOWEST_FIRST_BYTE = _FIXED_BIT


def begins_connection(datagram: Buffer) -> bool:
    """Return whether *datagram* starts with an Initial packet, a client's or a server's."""
    return len(datagram) > _DESTINATION and datagram[0] & _TYPE_BITS == _INITIAL


def destination(datagram: Buffer) -> bytes:
    """Return the identifier that *datagram* is addressed to; empty where there is none to be read."""
    if not datagram:
        return b""
    if not datagram[0] & _LONG_HEADER:
        return bytes(datagram[1 : 1 + CONNECTION_ID_LENGTH])
    if len(datagram) < _DESTINATION:
        return b""
    return bytes(datagram[_DESTINATION : _DESTINATION + datagram[_DESTINATION - 1]])


def source(datagram: Buffer) -> bytes:
    """Return the identifier that the sender of *datagram* goes by; empty where there is none to be read."""
    if len(datagram) < _DESTINATION or not datagram[0] & _LONG_HEADER:
        return b""
    at = _DESTINATION + datagram[_DESTINATION - 1]
    if len(datagram) <= at:
        return b""
    return bytes(datagram[at + 1 : at + 1 + datagram[at]])


def forgotten_notice(datagram: Buffer) -> bytes | None:
    """Return what to answer to *datagram*, which belongs to no connection we know.

    None where there is nothing to say: it begins a connection, or is no packet of an established one.
    """
    if len(datagram) <= CONNECTION_ID_LENGTH or datagram[0] & (_LONG_HEADER | _FIXED_BIT) != _FIXED_BIT:
        return None
    return _NOTICE + destination(datagram)


def forgotten_connection(datagram: Buffer) -> bytes | None:
    """Return the identifier that the peer does not know; None where *datagram* is not a `forgotten_notice`."""
    if len(datagram) != NOTICE_LENGTH or bytes(datagram[: len(_NOTICE)]) != _NOTICE:
        return None
    return bytes(datagram[len(_NOTICE) :])


@attrs.define(eq=False)
class Names:
    """The identifiers that a connection goes by, as far as its datagrams tell.

    Attributes:
      peer: What we address the peer by, once the handshake is over; empty before.
      ours: What the peer may address us by in its handshake: a client's first guess, and what we answered.

    """

    peer: bytes = b""
    ours: set[bytes] = attrs.field(factory=set[bytes])

    def learn(self, datagram: Buffer, *, ours: bool) -> None:
        """Take note of a datagram that we sent (*ours*) or got."""
        if not datagram[0] & _LONG_HEADER:
            if ours:
                self.peer = destination(datagram)
        elif ours:
            self.ours.add(source(datagram))
        elif not self.ours and begins_connection(datagram):
            self.ours.add(destination(datagram))

    def are_strangers_to(self, datagram: Buffer) -> bool:
        """Return whether a handshake's *datagram* is addressed to somebody else."""
        return bool(self.ours) and destination(datagram) not in self.ours

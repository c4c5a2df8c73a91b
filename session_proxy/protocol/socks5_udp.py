"""The header of datagrams that a SOCKS5 client sends and receives (RFC 1928, section 7)."""

from __future__ import annotations

from session_proxy.errors import InvalidTargetError
from session_proxy.protocol.cursor import Cursor, NeedMoreError
from session_proxy.protocol.socks5 import encode_address, read_address, target_of
from session_proxy.target import Target

# RSV and FRAG: standalone datagrams only, which is all that a relay without reassembly may send.
STANDALONE = bytes(3)


def encode_datagram(source: Target, payload: bytes) -> bytes:
    """Return what a client gets for *payload* from *source*."""
    return STANDALONE + encode_address(source.host, source.port) + payload


def decode_datagram(datagram: bytes) -> tuple[Target, bytes] | None:
    """Return where a client's *datagram* is to go, and its payload.

    `None` means that it must be dropped: it is a fragment (RFC 1928 leaves those to who wants them), it is cut
    off, or its destination is none.
    """
    cursor = Cursor(datagram)
    try:
        if cursor.take(3) != STANDALONE:
            return None
        address = read_address(cursor)
        return None if address is None else (target_of(*address), datagram[cursor.at :])
    except (NeedMoreError, InvalidTargetError):
        return None

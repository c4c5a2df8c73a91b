"""Tell by a client's first byte which protocol it speaks."""

from __future__ import annotations

import enum
import string


class ClientProtocol(enum.StrEnum):
    """What a client speaks; the value is what the access log calls it."""

    SOCKS5 = "socks5"
    SOCKS4 = "socks4"
    HTTP = "http"
    TLS = "tls"
    UNKNOWN = "unknown"


# ContentType "handshake" of the record that carries a ClientHello (RFC 8446, section 5.1).
TLS_HANDSHAKE = 0x16

# A fatal alert, handshake_failure (RFC 8446, section 6): the one answer that a TLS client understands.
TLS_REFUSAL = bytes.fromhex("15 03 01 00 02 02 28")

# A method is a token (RFC 9110, section 5.6.2), and before it empty lines may stand (RFC 9112, section 2.2).
HTTP_FIRST_BYTES = frozenset(b"\r\n!#$%&'*+-.^_`|~" + (string.digits + string.ascii_letters).encode("ascii"))


def sniff(data: bytes) -> ClientProtocol | None:
    """Return what the client speaks whose first bytes are *data*, or `None` where there are none yet.

    One byte is enough: no two of the protocols share any.
    """
    if not data:
        return None
    first = data[0]
    if first == 5:
        return ClientProtocol.SOCKS5
    if first == 4:
        return ClientProtocol.SOCKS4
    if first == TLS_HANDSHAKE:
        return ClientProtocol.TLS
    return ClientProtocol.HTTP if first in HTTP_FIRST_BYTES else ClientProtocol.UNKNOWN

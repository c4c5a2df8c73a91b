"""Tell by a client's first bytes which protocol it speaks."""

from __future__ import annotations

import enum
import string

from tunnel_relay.protocol.ssh_fields import string as ssh_string
from tunnel_relay.protocol.ssh_fields import uint32
from tunnel_relay.protocol.ssh_numbers import DISCONNECT, SERVICE_NOT_AVAILABLE


class ClientProtocol(enum.StrEnum):
    """What a client speaks; the value is what the access log calls it."""

    SOCKS5 = "socks5"
    SOCKS4 = "socks4"
    HTTP = "http"
    TLS = "tls"
    SSH = "ssh"
    UNKNOWN = "unknown"


# ContentType "handshake" of the record that carries a ClientHello (RFC 8446, section 5.1).
TLS_HANDSHAKE = 0x16

# A fatal alert, handshake_failure (RFC 8446, section 6): the one answer that a TLS client understands.
TLS_REFUSAL = bytes.fromhex("15 03 01 00 02 02 28")

# How the version string begins by which an SSH client introduces itself (RFC 4253, section 4.2).
SSH_VERSION = b"SSH-"


def ssh_refusal(reason: str) -> bytes:
    """Return what tells an SSH client *reason*: a version string and SSH_MSG_DISCONNECT (RFC 4253, section 11.1)."""
    payload = (
        bytes((DISCONNECT,)) + uint32(SERVICE_NOT_AVAILABLE) + ssh_string(reason.encode()) + ssh_string(b"")
    )
    # RFC 4253, section 6: no less than 4 bytes, and the whole is a multiple of 8.
    padding = 4 + -(4 + 1 + len(payload) + 4) % 8
    packet = bytes((padding,)) + payload + bytes(padding)
    return SSH_VERSION + b"2.0-sproxy\r\n" + ssh_string(packet)


# A method is a token (RFC 9110, section 5.6.2), and before it empty lines may stand (RFC 9112, section 2.2).
HTTP_FIRST_BYTES = frozenset(b"\r\n!#$%&'*+-.^_`|~" + (string.digits + string.ascii_letters).encode("ascii"))


def sniff(data: bytes) -> ClientProtocol | None:
    """Return what the client speaks whose first bytes are *data*, or `None` where they do not tell yet.

    One byte is enough, but for SSH: a method of HTTP may begin with its first letter too.
    """
    if SSH_VERSION.startswith(data):
        return ClientProtocol.SSH if data == SSH_VERSION else None
    if data.startswith(SSH_VERSION):
        return ClientProtocol.SSH
    first = data[0]
    if first == 5:
        return ClientProtocol.SOCKS5
    if first == 4:
        return ClientProtocol.SOCKS4
    if first == TLS_HANDSHAKE:
        return ClientProtocol.TLS
    return ClientProtocol.HTTP if first in HTTP_FIRST_BYTES else ClientProtocol.UNKNOWN

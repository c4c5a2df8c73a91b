"""What load generator and target say to each other, and a SOCKS5 client (RFC 1928) for plain sockets.

A client opens with 9 bytes: what it wants (one letter, below) and a count. Capital letters are for timed
transfers, small ones for transfers of which every byte is compared.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

REQUEST = struct.Struct("!cQ")
RECEIPT = struct.Struct("!Q")  # what the target got, after an upload

DOWN, DOWN_CHECKED = b"D", b"d"
UP, UP_CHECKED = b"U", b"u"
ECHO = b"E"
HOLD = b"H"

# What the greeting target sends at once, so that a proxy that says "connected" early gains nothing.
GREETING = b"!"

Address = tuple[str, int]

Credentials = tuple[str, str]

_NO_AUTHENTICATION = b"\x05\x01\x00"
_WITH_PASSWORD = b"\x05\x01\x02"  # RFC 1928, section 3
_REPLY_V4 = 10  # RFC 1928, section 6, with an IPv4 address


def connect(proxy: Address | None, target: Address, credentials: Credentials | None = None) -> socket.socket:
    """Return a connection to *target*, through the SOCKS5 server *proxy* or directly.

    *credentials* are the user and the password that the proxy asks for.

    Raises:
      OSError: it cannot be had; a SOCKS5 refusal is a `ConnectionRefusedError`.

    """
    connection = socket.create_connection(proxy or target)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if proxy is None:
        return connection
    try:
        _introduce(connection, credentials)
        address = ipaddress.IPv4Address(target[0]).packed
        connection.sendall(b"\x05\x01\x00\x01" + address + target[1].to_bytes(2, "big"))
        reply = receive_exactly(connection, _REPLY_V4)
        if reply[1]:
            raise ConnectionRefusedError(f"the proxy answered {reply[1]}")
    except OSError:
        connection.close()
        raise
    return connection


def _introduce(connection: socket.socket, credentials: Credentials | None) -> None:
    if credentials is None:
        connection.sendall(_NO_AUTHENTICATION)
        if receive_exactly(connection, 2) != b"\x05\x00":
            raise ConnectionRefusedError("the proxy wants credentials")
        return
    user, password = (text.encode() for text in credentials)
    # RFC 1929; both messages at once, as the answer to the first can only be yes.
    message = b"\x01" + bytes((len(user),)) + user + bytes((len(password),)) + password
    connection.sendall(_WITH_PASSWORD + message)
    if receive_exactly(connection, 4) != b"\x05\x02\x01\x00":
        raise ConnectionRefusedError("the proxy takes other credentials")


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    """Return the next *count* bytes; raises `ConnectionResetError` where there are fewer."""
    received = b""
    while len(received) < count:
        piece = connection.recv(count - len(received))
        if not piece:
            raise ConnectionResetError(f"closed after {len(received)} of {count} bytes")
        received += piece
    return received

"""A blocking SOCKS5 client (RFC 1928), for tests with real programs."""

from __future__ import annotations

import socket

from session_proxy.lab.socks_client import GREETING, encode_request
from session_proxy.target import Target, split_host_port

PATIENCE = 30.0


def connect(proxy: str, target: str) -> socket.socket:
    """Return a connection to *target* through *proxy*; raises `ConnectionError` with the reply's code."""
    connection = socket.create_connection(split_host_port(proxy), timeout=PATIENCE)
    try:
        connection.sendall(GREETING)
        assert receive_exactly(connection, 2) == b"\x05\x00"
        connection.sendall(encode_request(Target.parse(target)))
        _, code, _, kind = receive_exactly(connection, 4)
        receive_exactly(connection, {1: 4, 4: 16}[kind] + 2)
        if code:
            raise ConnectionError(f"SOCKS reply {code}")
    except OSError:
        connection.close()
        raise
    return connection


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    """Return the next *count* bytes; raises `ConnectionError` where there are fewer."""
    received = b""
    while len(received) < count:
        piece = connection.recv(count - len(received))
        if not piece:
            raise ConnectionError(f"closed after {len(received)} of {count} bytes")
        received += piece
    return received

"""PROXY headers: whole, in pieces, and wrong."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.proxy_header import LONGEST, SIGNATURE, ProxyHeader, read_proxy_header


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


IPV4 = socket.inet_pton(socket.AF_INET, "203.0.113.9") + bytes(4) + b"\x01\x00\x02\x00"
IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::9") + bytes(16) + b"\x01\x00\x02\x00"

GOOD = [
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n", "203.0.113.9"),
    (b"PROXY TCP6 2001:db8::9 2001:db8::1 56324 443\r\n", "2001:db8::9"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ff:ff ff:ff 65535 65535\r\n", None),
    (v2(0x21, 0x11, IPV4), "203.0.113.9"),
    (v2(0x21, 0x21, IPV6), "2001:db8::9"),
    # What follows the addresses is not ours to read.
    (v2(0x21, 0x11, IPV4 + b"\x04\x00\x03abc"), "203.0.113.9"),
    (v2(0x20, 0x00, b""), None),
    (v2(0x21, 0x31, bytes(216)), None),
]


@pytest.mark.parametrize(("header", "source"), GOOD)
def test_a_header_is_read_when_all_of_it_is_here(header: bytes, source: str | None) -> None:
    for end in range(len(header)):
        assert read_proxy_header(header[:end]) is None
    for rest in (b"", b"GET / HTTP/1.1\r\n", b"\r\n\r\n"):
        assert read_proxy_header(header + rest) == ProxyHeader(source, len(header))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PROXY TCP4 203.0.113.9\r\n",
        b"PROXY TCP4 2001:db8::9 2001:db8::1 1 2\r\n",
        b"PROXY TCP4 here there 1 2\r\n",
        b"PROXY UDP4 203.0.113.9 192.0.2.1 1 2\r\n",
        b"PROXY UNKNOWN " + b"x" * 107,
        v2(0x31, 0x11, IPV4),
        v2(0x22, 0x11, IPV4),
        v2(0x21, 0x11, IPV4[:8]),
        SIGNATURE + b"\x21\x11" + (LONGEST + 1).to_bytes(2, "big"),
    ],
)
def test_anything_else_is_an_error(data: bytes) -> None:
    with pytest.raises(RelayProtocolError):
        read_proxy_header(data)


@given(st.binary(max_size=64), st.sampled_from([b"", SIGNATURE, b"PROXY TCP4 "]))
def test_nonsense_raises_nothing_else(data: bytes, start: bytes) -> None:
    try:
        header = read_proxy_header(start + data)
    except RelayProtocolError:
        return
    assert header is None or header.length <= len(start + data)

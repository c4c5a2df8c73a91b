from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.protocol.socks5_udp import decode_datagram, encode_datagram
from session_proxy.target import Target


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        # RSV, FRAG, ATYP, address, port, payload
        (b"\0\0\0\x01\xc0\0\x02\x07\x00\x35query", (Target("192.0.2.7", 53), b"query")),
        (b"\0\0\0\x03\x07example\x00\x35", (Target("example", 53), b"")),
        (b"\0\0\0\x04" + bytes(15) + b"\x01\x00\x35x", (Target("::1", 53), b"x")),
        # A fragment: RFC 1928, section 7, "MUST drop any datagram whose FRAG field is other than X'00'".
        (b"\0\0\x01\x01\xc0\0\x02\x07\x00\x35query", None),
        (b"\0\x01\0\x01\xc0\0\x02\x07\x00\x35query", None),
        (b"\0\0\0\x02\xc0\0\x02\x07\x00\x35query", None),
        (b"\0\0\0\x01\xc0\0\x02\x07\x00\x00query", None),
        (b"\0\0\0\x03\xffexample\x00\x35", None),
        (b"\0\0\0", None),
        (b"", None),
    ],
)
def test_a_datagram_is_read_or_dropped(datagram: bytes, expected: tuple[Target, bytes] | None) -> None:
    assert decode_datagram(datagram) == expected


@given(st.ip_addresses(), st.integers(1, 65535), st.binary(max_size=100))
def test_what_was_encoded_can_be_read(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, payload: bytes
) -> None:
    target = Target.of(str(address), port)
    assert decode_datagram(encode_datagram(target, payload)) == (target, payload)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing(datagram: bytes) -> None:
    decode_datagram(datagram)
    decode_datagram(bytes(3) + datagram)

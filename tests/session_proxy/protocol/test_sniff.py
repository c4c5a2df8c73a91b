from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.protocol.sniff import TLS_REFUSAL, ClientProtocol, sniff


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (b"\x05", ClientProtocol.SOCKS5),
        (b"\x05\x01\x00", ClientProtocol.SOCKS5),
        (b"\x04\x01", ClientProtocol.SOCKS4),
        (b"\x16\x03\x01\x02\x00", ClientProtocol.TLS),
        (b"CONNECT example.com:443 HTTP/1.1\r\n", ClientProtocol.HTTP),
        (b"get", ClientProtocol.HTTP),
        # RFC 9112, section 2.2: a server should ignore an empty line before the request.
        (b"\r\nGET / HTTP/1.1", ClientProtocol.HTTP),
        (b"PRI * HTTP/2.0\r\n", ClientProtocol.HTTP),
        (b"\x00", ClientProtocol.UNKNOWN),
        (b"\x80\x2e\x01", ClientProtocol.UNKNOWN),
        (b" GET", ClientProtocol.UNKNOWN),
    ],
)
def test_the_first_byte_tells_the_protocol(data: bytes, expected: ClientProtocol | None) -> None:
    assert sniff(data) is expected


@given(st.binary(min_size=1))
def test_one_byte_is_enough_for_any_client(data: bytes) -> None:
    assert sniff(data) is sniff(data[:1]) is not None


def test_the_answer_to_tls_is_a_fatal_alert_record() -> None:
    content_type, length, alert = TLS_REFUSAL[0], TLS_REFUSAL[3:5], TLS_REFUSAL[5:]

    assert content_type == 21
    assert int.from_bytes(length, "big") == len(alert) == 2
    assert alert[0] == 2

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.protocol.sniff import TLS_REFUSAL, ClientProtocol, sniff, ssh_refusal
from tunnel_relay.protocol.ssh_fields import Fields


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
        (b"SSH", None),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ClientProtocol.SSH),
        (b"SEARCH http://example.com/ HTTP/1.1\r\n", ClientProtocol.HTTP),
        (b"\x00", ClientProtocol.UNKNOWN),
        (b"\x80\x2e\x01", ClientProtocol.UNKNOWN),
        (b" GET", ClientProtocol.UNKNOWN),
    ],
)
def test_the_first_bytes_tell_the_protocol(data: bytes, expected: ClientProtocol | None) -> None:
    assert sniff(data) is expected


@given(st.binary(min_size=1).filter(lambda data: data[:1] != b"S"))
def test_one_byte_is_enough_for_any_client_but_of_ssh(data: bytes) -> None:
    assert sniff(data) is sniff(data[:1]) is not None


@given(st.binary(min_size=3))
def test_four_bytes_are_enough_for_any(data: bytes) -> None:
    assert sniff(b"S" + data) is not None


@pytest.mark.parametrize("reason", ["", "no", "this is something else"])
def test_the_answer_to_ssh_is_a_packet_that_says_why(reason: str) -> None:
    """RFC 4253, section 6: before keys are exchanged, packets are in the clear and without a MAC."""
    version, _, packet = ssh_refusal(reason).partition(b"\r\n")
    assert version.startswith(b"SSH-2.0-")
    assert len(packet) % 8 == 0
    assert packet[4] >= 4
    fields = Fields(packet, 5)
    assert int.from_bytes(packet[:4], "big") == len(packet) - 4
    assert (fields.byte(), fields.uint32(), fields.text()) == (1, 7, reason)
    assert fields.string() == b""
    assert len(fields.rest()) == packet[4]


def test_the_answer_to_tls_is_a_fatal_alert_record() -> None:
    content_type, length, alert = TLS_REFUSAL[0], TLS_REFUSAL[3:5], TLS_REFUSAL[5:]

    assert content_type == 21
    assert int.from_bytes(length, "big") == len(alert) == 2
    assert alert[0] == 2

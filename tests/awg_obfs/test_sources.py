from __future__ import annotations

import socket
import struct

import pytest

from awg_obfs.protocol.address import Address
from awg_obfs.sources import IP_PKTINFO, IPV6_PKTINFO, MAX_SENDERS, Ancillary, Sources

SENDER: Address = ("192.0.2.7", 4500)


def ipv4_info(local: str, interface: int = 3) -> Ancillary:
    info = struct.pack("=I4s4s", interface, socket.inet_aton(local), socket.inet_aton("192.0.2.255"))
    return socket.IPPROTO_IP, IP_PKTINFO, info


def ipv6_info(local: str, interface: int) -> Ancillary:
    return socket.IPPROTO_IPV6, IPV6_PKTINFO, struct.pack("=16sI", socket.inet_pton(10, local), interface)


def test_an_ipv4_answer_names_the_local_address_and_leaves_the_way_to_routes() -> None:
    sources = Sources()
    assert sources.answer(SENDER) is None
    sources.note(SENDER, ipv4_info("192.0.2.1"))
    expected = struct.pack("=I4s4s", 0, socket.inet_aton("192.0.2.1"), bytes(4))
    assert sources.answer(SENDER) == (socket.IPPROTO_IP, IP_PKTINFO, expected)


def test_the_last_address_counts() -> None:
    sources = Sources()
    for local in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        sources.note(SENDER, ipv4_info(local))
    answer = sources.answer(SENDER)
    assert answer is not None
    assert answer[2][4:8] == socket.inet_aton("192.0.2.2")


@pytest.mark.parametrize(
    ("local", "interface"), [("2001:db8::1", 0), ("::ffff:192.0.2.1", 0), ("fe80::1", 3)]
)
def test_an_ipv6_answer_names_the_interface_where_the_address_means_nothing_without(
    local: str, interface: int
) -> None:
    sources = Sources()
    sources.note(SENDER, ipv6_info(local, 3))
    assert sources.answer(SENDER) == ipv6_info(local, interface)


def test_other_ancillary_data_mean_nothing() -> None:
    sources = Sources()
    sources.note(SENDER, (socket.IPPROTO_UDP, 104, b"\0\0\0\0"))
    assert sources.answer(SENDER) is None


def test_it_forgets() -> None:
    sources = Sources()
    sources.note(SENDER, ipv4_info("192.0.2.1"))
    sources.forget(SENDER)
    assert sources.answer(SENDER) is None
    sources.forget(SENDER)


def test_strangers_cannot_have_it_remember_without_end() -> None:
    sources = Sources()
    for port in range(MAX_SENDERS + 1):
        sources.note((SENDER[0], port), ipv4_info("192.0.2.1"))
    assert sources.answer((SENDER[0], 0)) is None
    assert sources.answer((SENDER[0], MAX_SENDERS)) is not None


def test_a_socket_with_one_address_needs_none() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert Sources.of(sock, ("127.0.0.1", 0)) is None

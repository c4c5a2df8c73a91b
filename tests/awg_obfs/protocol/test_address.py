from __future__ import annotations

from awg_obfs.protocol.address import address_bytes, network_bytes


def test_an_address_is_its_ip_and_its_port_the_short_end_first() -> None:
    assert address_bytes(("192.0.2.1", 51820)).hex() == "c00002016cca"
    assert address_bytes(("2001:db8::1", 1)).hex() == "20010db8000000000000000000000001" + "0100"


def test_the_zone_of_an_address_is_no_part_of_its_bytes() -> None:
    assert address_bytes(("fe80::1%eth0", 1)) == address_bytes(("fe80::1", 1))


def test_ipv6_senders_are_told_apart_by_their_networks() -> None:
    assert network_bytes(("2001:db8:0:1::5", 1)) == network_bytes(("2001:db8:0:1:ffff::", 2))
    assert network_bytes(("2001:db8:0:1::5", 1)) != network_bytes(("2001:db8:0:2::5", 1))
    assert network_bytes(("192.0.2.1", 1)) != network_bytes(("192.0.2.2", 1))

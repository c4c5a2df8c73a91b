from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.policy import INWARD, IPAddress, Policy, embedded_ipv4, networks

ANYTHING = Policy(deny=())


def permits(policy: Policy, address: IPAddress | str, own: tuple[str, ...] = ()) -> bool:
    """Ask *policy*, on a machine that has the addresses *own*."""
    if isinstance(address, str):
        address = ipaddress.ip_address(address)
    return policy.permits(address, lambda each: str(each) in own)


INSIDE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",  # Alibaba's metadata
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",  # Azure's wire server
    "169.254.169.254",  # most clouds' metadata
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",  # Oracle's metadata
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.251",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::",
    "2001:0:5ef5:79fd:0:0:80ff:fffe",  # Teredo of 127.0.0.1
    "2606:4700::5efe:10.0.0.1",  # ISATAP, and the same of an address that is unique
    "2606:4700::200:5efe:127.0.0.1",
    "2606:4700::5efe:a9fe:a9fe",
    "2002:808:808::5efe:10.0.0.1",  # 6to4 of a public address, ISATAP of a private one
    "2001:2::1",
    "2001:10::1",
    "2001:1f:ffff::1",
    "2001:20::1",
    "2001:2f:ffff::1",
    "fd00:ec2::254",  # Amazon's metadata
    "fc00::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
OUTSIDE = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "2001:2:1::1",
    "2001:30::1",
    "2606:4700::5efe:8.8.8.8",
    "2606:4700::200:5efe:8.8.8.8",
    "2606:4700::100:5efe:10.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_not_the_internet_is_denied_unless_somebody_says_otherwise(address: str) -> None:
    assert not permits(Policy(), address)
    assert permits(ANYTHING, address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_the_internet_is_allowed(address: str) -> None:
    assert permits(Policy(), address)


def test_only_what_is_allowed_may_be_reached_where_there_is_a_list() -> None:
    policy = Policy(allow=networks("198.51.100.0/24", "2001:db8::/32"), deny=networks("198.51.100.7/32"))

    assert permits(policy, "198.51.100.1")
    assert permits(policy, "2001:db8::5")
    assert permits(policy, "::ffff:198.51.100.1")
    assert not permits(policy, "198.51.100.7")
    assert not permits(policy, "::ffff:198.51.100.7")
    assert not permits(policy, "203.0.113.1")
    assert not permits(policy, "2001:db9::1")


def test_the_narrowest_network_around_an_address_decides() -> None:
    policy = Policy(
        allow=networks("0.0.0.0/0", "10.20.0.0/16", "127.0.0.1/32", "172.16.0.0/12"),
        deny=(*INWARD, *networks("10.20.30.0/24")),
    )

    assert permits(policy, "10.20.1.1")
    assert permits(policy, "127.0.0.1")
    assert permits(policy, "172.16.0.1")
    assert not permits(policy, "10.20.30.1")
    assert not permits(policy, "10.21.0.1")
    assert not permits(policy, "127.0.0.2")


def test_an_address_behind_nat64_must_be_allowed_in_both_of_its_forms() -> None:
    only_ipv4 = Policy(allow=networks("0.0.0.0/0"), deny=())
    only_ipv6 = Policy(allow=networks("::/0"), deny=())

    assert not permits(only_ipv4, "64:ff9b::808:808")
    assert not permits(only_ipv6, "64:ff9b::808:808")


def test_the_machines_own_addresses_are_denied_as_loopback_is() -> None:
    own = ("198.41.0.4", "2606:4700::4", "10.20.0.5")

    for disguised in (*own[:2], "::ffff:198.41.0.4", "64:ff9b::198.41.0.4", "2606:4700:7::5efe:198.41.0.4"):
        assert not permits(Policy(), disguised, own), disguised
        assert permits(Policy(), disguised), disguised
        assert permits(ANYTHING, disguised, own), disguised
    assert permits(Policy(), "198.41.0.5", own)
    # Whoever writes a list of his own decides by its loopback.
    assert not permits(Policy(deny=networks("127.0.0.0/8")), "198.41.0.4", own)
    assert permits(Policy(deny=networks("127.0.0.0/8")), "2606:4700::4", own)
    assert permits(Policy(deny=networks("10.0.0.0/8", "::1/128")), "198.41.0.4", own)
    assert not permits(Policy(deny=networks("::/96")), "2606:4700::4", own)


def test_an_own_address_is_reached_where_it_is_allowed_by_itself() -> None:
    own = ("198.41.0.4", "10.20.0.5")
    around = Policy(allow=networks("198.41.0.0/24", "10.20.0.0/16"))
    itself = Policy(allow=networks("198.41.0.4/32", "10.20.0.5/32"))

    for address in own:
        assert not permits(around, address, own)
        assert permits(itself, address, own)
    assert permits(around, "10.20.0.6", own)


def test_loopback_is_allowed_as_any_network_is() -> None:
    """All of it is the machine's own."""
    policy = Policy(allow=networks("0.0.0.0/0", "127.0.0.0/8"))
    for address in ("127.0.0.1", "127.0.0.2"):
        assert permits(policy, address, ("127.0.0.1",))


@given(st.ip_addresses(v=4, network="0.0.0.0/0"))
def test_no_spelling_of_an_ipv4_address_evades_the_policy(address: ipaddress.IPv4Address) -> None:
    policy, number = Policy(), int(address)
    allowed = permits(policy, address)

    mapped = ipaddress.IPv6Address(0xFFFF_0000_0000 | number)
    assert permits(policy, mapped) == allowed
    for prefix, shift in (
        ("64:ff9b::", 0),
        ("2002::", 80),
        ("2606:4700::5efe:0:0", 0),
        ("2606:4700::200:5efe:0:0", 0),
    ):
        disguised = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | number << shift)
        assert embedded_ipv4(disguised) == (address,)
        assert permits(policy, disguised) == allowed


@given(st.ip_addresses())
def test_denied_networks_are_denied_in_full(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    inside = any(address in network for network in INWARD if network.version == address.version)
    if inside and not embedded_ipv4(address):
        assert not permits(Policy(), address)


def test_unspecified_and_loopback_are_no_ipv4_addresses() -> None:
    assert not embedded_ipv4(ipaddress.ip_address("::"))
    assert not embedded_ipv4(ipaddress.ip_address("::1"))
    assert not embedded_ipv4(ipaddress.ip_address("192.0.2.1"))
    assert not embedded_ipv4(ipaddress.ip_address("2001:db8::1"))

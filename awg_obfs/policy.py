"""Where a server lets its clients go. Addresses are judged, never names: a name is looked up first."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import cached_property

import attrs

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def networks(*texts: str) -> tuple[Network, ...]:
    """Return *texts* as networks."""
    return tuple(ipaddress.ip_network(text) for text in texts)


EVERYWHERE = networks("0.0.0.0/0", "::/0")

INWARD = networks(
    "0.0.0.0/8",  # this host on this network; Linux takes 0.0.0.0 for loopback
    "10.0.0.0/8",  # private (RFC 1918)
    "100.64.0.0/10",  # carriers' NAT (RFC 6598), where one cloud has its metadata
    "127.0.0.0/8",  # loopback
    "168.63.129.16/32",  # the host below Azure's machines: their agent, and names of their network
    "169.254.0.0/16",  # link-local; most clouds' metadata
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocol assignments (RFC 6890), where one cloud has its metadata
    "192.0.2.0/24",  # documentation (RFC 5737), as the two below
    "192.88.99.0/24",  # 6to4 relays, given up (RFC 7526)
    "192.168.0.0/16",  # private
    "198.18.0.0/15",  # benchmarks (RFC 2544)
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    "::/128",  # unspecified, which Linux takes for loopback
    "::1/128",  # loopback
    "64:ff9b:1::/48",  # NAT64 of one's own network (RFC 8215)
    "100::/64",  # discarded (RFC 6666)
    "2001:2::/48",  # benchmarks (RFC 5180)
    "2001:10::/28",  # names of keys, given up (RFC 4843)
    "2001:20::/28",  # names of keys (RFC 7343)
    "2001:db8::/32",  # documentation
    "3fff::/20",  # documentation (RFC 9637)
    "5f00::/16",  # segment routing (RFC 9602)
    "fc00::/7",  # unique local, where one cloud has its metadata
    "fe80::/10",  # link-local
    "fec0::/10",  # site-local, given up (RFC 3879)
    "ff00::/8",  # multicast
)
"""What is not the Internet: what is here, on the same link, private, or a cloud's metadata."""

# IPv6 addresses that lead to an IPv4 address somewhere on the way, and how far right in them that stands.
_TRANSLATED = (
    (ipaddress.IPv6Network("::/96"), 0),  # "compatible", given up (RFC 4291, section 2.5.5.1)
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (ipaddress.IPv6Network("::ffff:0:0:0/96"), 0),  # translated (RFC 2765)
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64 (RFC 6052)
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4 (RFC 3056)
)
_TEREDO = ipaddress.IPv6Network("2001::/32")
# Upper halves of interface identifiers whose lower half is an IPv4 address, private or public (RFC 5214, section 6.1).
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
_LOWEST_32_BITS = 0xFFFF_FFFF

_LOOPBACK: dict[int, IPAddress] = {
    4: ipaddress.IPv4Address("127.0.0.1"),
    6: ipaddress.IPv6Address("::1"),
}


def embedded_ipv4(address: IPAddress) -> tuple[ipaddress.IPv4Address, ...]:
    """Return the IPv4 addresses that *address* may lead to, if it is one of IPv6 that is made of them.

    There may be two: routers look at an address's beginning, ISATAP at its end, below any prefix.
    """
    if address.version == 4:
        return ()
    number = int(address)
    if number <= 1:
        # Unspecified and loopback are not the IPv4 addresses 0.0.0.0 and 0.0.0.1.
        return ()
    found: list[int] = []
    if address in _TEREDO:
        # RFC 4380, section 4: all bits of the client's address are inverted.
        found.append(~number)
    found += [number >> shift for network, shift in _TRANSLATED if address in network]
    if number >> 32 & _LOWEST_32_BITS in _ISATAP:
        found.append(number)
    return tuple(ipaddress.IPv4Address(inner & _LOWEST_32_BITS) for inner in found)


@attrs.frozen
class Policy:
    """Which addresses may be reached: those in *allow*, but not in *deny*.

    Where networks of both hold an address, the narrowest one decides, so that one private network can be allowed
    beside the Internet without writing the rest of the private ones down; between equals it is *allow*. An IPv6
    address that stands for an IPv4 address is judged as both.

    Where *deny* has loopback, it has the machine's own addresses, too, each as a network of its own: services that
    listen to all of the machine's addresses, or trust what comes from them, are behind either.
    """

    allow: tuple[Network, ...] = EVERYWHERE
    deny: tuple[Network, ...] = INWARD

    def permits(self, address: IPAddress, is_own: Callable[[IPAddress], bool]) -> bool:
        """Return whether clients may go to *address*; *is_own* says which addresses are the machine's."""
        inner = embedded_ipv4(address)
        # Mapped (RFC 4291, section 2.5.5.2) is another spelling, and sockets take it for IPv4.
        mapped = address.version == 6 and int(address) >> 32 == 0xFFFF
        return all(self._judge(each, is_own) for each in (inner if mapped else (*inner, address)))

    @cached_property
    def _by_version(self) -> dict[int, tuple[tuple[Network, ...], tuple[Network, ...]]]:
        return {
            version: (
                tuple(network for network in self.allow if network.version == version),
                tuple(network for network in self.deny if network.version == version),
            )
            for version in (4, 6)
        }

    @cached_property
    def _denies_loopback(self) -> dict[int, bool]:
        return {
            version: any(loopback in network for network in self._by_version[version][1])
            for version, loopback in _LOOPBACK.items()
        }

    def _judge(self, address: IPAddress, is_own: Callable[[IPAddress], bool]) -> bool:
        allow, deny = self._by_version[address.version]
        allowed = _narrowest(address, allow)
        if allowed < 0 or allowed < _narrowest(address, deny):
            return False
        # Loopback is all the machine's own, and allowed as any network is. The question comes last: it takes longest.
        return (
            allowed == address.max_prefixlen
            or address.is_loopback
            or not self._denies_loopback[address.version]
            or not is_own(address)
        )


def _narrowest(address: IPAddress, networks: tuple[Network, ...]) -> int:
    """Return the longest prefix of *networks* around *address*; -1 where it is in none."""
    return max((network.prefixlen for network in networks if address in network), default=-1)

"""Where a server lets its clients go. Addresses are judged, never names: a name is looked up first."""

from __future__ import annotations

import ipaddress
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
_LOWEST_32_BITS = 0xFFFF_FFFF


def embedded_ipv4(address: IPAddress) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that *address* may lead to, if it is one of IPv6 that is made of one."""
    if address.version == 4:
        return None
    number = int(address)
    if number <= 1:
        # Unspecified and loopback are not the IPv4 addresses 0.0.0.0 and 0.0.0.1.
        return None
    if address in _TEREDO:
        # RFC 4380, section 4: all bits of the client's address are inverted.
        return ipaddress.IPv4Address(~number & _LOWEST_32_BITS)
    for network, shift in _TRANSLATED:
        if address in network:
            return ipaddress.IPv4Address(number >> shift & _LOWEST_32_BITS)
    return None


@attrs.frozen
class Policy:
    """Which addresses may be reached: those in *allow*, but not in *deny*.

    Where networks of both hold an address, the narrowest one decides, so that one private network can be allowed
    beside the Internet without writing the rest of the private ones down; between equals it is *allow*. An IPv6
    address that stands for an IPv4 address is judged as both.
    """

    allow: tuple[Network, ...] = EVERYWHERE
    deny: tuple[Network, ...] = INWARD

    def permits(self, address: IPAddress) -> bool:
        """Return whether clients may go to *address*."""
        inner = embedded_ipv4(address)
        if inner is None:
            return self._judge(address)
        if int(address) >> 32 == 0xFFFF:
            # Mapped (RFC 4291, section 2.5.5.2): another spelling, and sockets take it for IPv4.
            return self._judge(inner)
        return self._judge(inner) and self._judge(address)

    @cached_property
    def _by_version(self) -> dict[int, tuple[tuple[Network, ...], tuple[Network, ...]]]:
        return {
            version: (
                tuple(network for network in self.allow if network.version == version),
                tuple(network for network in self.deny if network.version == version),
            )
            for version in (4, 6)
        }

    def _judge(self, address: IPAddress) -> bool:
        allow, deny = self._by_version[address.version]
        allowed = _narrowest(address, allow)
        return allowed >= 0 and allowed >= _narrowest(address, deny)


def _narrowest(address: IPAddress, networks: tuple[Network, ...]) -> int:
    """Return the longest prefix of *networks* around *address*; -1 where it is in none."""
    return max((network.prefixlen for network in networks if address in network), default=-1)

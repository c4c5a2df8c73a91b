"""Where a datagram comes from or goes to."""

from __future__ import annotations

import ipaddress

Address = tuple[str, int]
"""An IP address as text, and a port: as sockets give it. An IPv6 address may carry its zone (``fe80::1%eth0``)."""

# An IPv6 customer has a network of at least this many bits, and moves freely inside it.
IPV6_NETWORK_BYTES = 8


def address_bytes(address: Address) -> bytes:
    """Return an address as the reference feeds it to its cookies: IP bytes, port (2 bytes, little-endian)."""
    return ipaddress.ip_address(address[0]).packed + address[1].to_bytes(2, "little")


def network_bytes(address: Address) -> bytes:
    """Return what one sender cannot leave: its IPv4 address, or the /64 network of its IPv6 address."""
    packed = ipaddress.ip_address(address[0]).packed
    return packed if len(packed) == 4 else packed[:IPV6_NETWORK_BYTES]

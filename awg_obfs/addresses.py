"""Between addresses as this package writes them, and as sockets do.

Here an address is `Address`: an IP address as text, and a port. A socket of IPv6 gives four values, writes an
IPv4 address as ``::ffff:192.0.2.1`` where it speaks both, and has a zone as a number of its own.
"""

from __future__ import annotations

import ipaddress
import socket

from awg_obfs.protocol.address import Address

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""What sockets of IPv4 (two values) and of IPv6 (four: with flow label and zone) give and take."""

ANY_IPV4: Address = ("0.0.0.0", 0)  # noqa: S104  # it binds nothing here
ANY_IPV6: Address = ("::", 0)

_MAPPED = "::ffff:"


def is_ipv6(address: Address) -> bool:
    """Return whether *address* is one of IPv6."""
    return ":" in address[0]


def family_of(address: Address) -> socket.AddressFamily:
    """Return of which family a socket for *address* is."""
    return socket.AF_INET6 if is_ipv6(address) else socket.AF_INET


def any_address_like(address: Address) -> Address:
    """Return what to bind to, to send to *address* from whichever interface leads there."""
    return ANY_IPV6 if is_ipv6(address) else ANY_IPV4


def is_any(address: Address) -> bool:
    """Return whether *address* stands for all addresses of the machine."""
    return ipaddress.ip_address(address[0]).is_unspecified


def from_socket(address: SocketAddress) -> Address:
    """Return *address* as this package writes it."""
    if len(address) == 2:
        return address
    host, port, _, zone = address
    if host.startswith(_MAPPED) and "." in host:
        return host[len(_MAPPED) :], port
    return (f"{host}%{zone}" if zone else host), port


def to_socket(address: Address, family: socket.AddressFamily) -> SocketAddress | None:
    """Return *address* for a socket of *family*; None where such a socket cannot reach it."""
    host, port = address
    if family == socket.AF_INET:
        return None if is_ipv6(address) else address
    if not is_ipv6(address):
        return _MAPPED + host, port, 0, 0
    host, _, zone = host.partition("%")
    if not zone:
        return host, port, 0, 0
    try:
        return host, port, 0, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    except OSError:
        # The interface has gone, and its name with it.
        return None


def shown(address: Address) -> str:
    """Return *address* as people write it."""
    host, port = address
    return f"[{host}]:{port}" if is_ipv6(address) else f"{host}:{port}"

"""Whose connection it is, behind balancers: the nearest address that is not one of theirs."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_trusted(address: str, trusted: Collection[Network]) -> bool:
    """Return whether *address* is one of those whose word about others is taken."""
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in trusted)


def client_address(peer: str, forwarded: str, trusted: Collection[Network]) -> str:
    """Return the client's address: *peer*'s, or where that is trusted, the one that it says.

    Args:
      peer: Who connects to us.
      forwarded: The ``X-Forwarded-For`` header; each of a row of proxies adds, at the end, who connected to it.
      trusted: Who is believed.

    """
    address = _plain(peer)
    for hop in reversed(forwarded.split(",")):
        if not is_trusted(address, trusted):
            break
        said = _without_port(hop.strip())
        if _parse(said) is None:
            break
        address = _plain(said)
    return address


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _plain(address: str) -> str:
    """Return *address* as everybody writes it, so that it is counted once."""
    parsed = _parse(address)
    return address if parsed is None else str(parsed)


def _without_port(hop: str) -> str:
    # Some write [2001:db8::1]:443 or 203.0.113.9:443.
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop

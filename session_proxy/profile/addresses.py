"""Addresses to listen on, compared as far as that goes without looking names up."""

from __future__ import annotations

import ipaddress

from session_proxy.profile.model import ListenAddress

# By IP version: all addresses of this machine.
WILDCARDS = {4: "0.0.0.0", 6: "::"}  # noqa: S104


def is_loopback(address: ListenAddress) -> bool:
    """Tell whether only this machine can reach *address*; of names, only ``localhost`` surely is so."""
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost" or address.host.endswith(".localhost")


def collide(one: ListenAddress, other: ListenAddress) -> bool:
    """Tell whether one address takes the port of the other, as far as that shows without looking names up."""
    if one.port != other.port or not one.port:
        return False
    if one.host == other.host:
        return True
    hosts = {one.host, other.host}
    if "localhost" in hosts:
        return not hosts.isdisjoint({"127.0.0.1", "::1", *WILDCARDS.values()})
    try:
        versions = {ipaddress.ip_address(host).version for host in hosts}
    except ValueError:
        return False
    # We listen on "::" without IPv4.
    return len(versions) == 1 and WILDCARDS[versions.pop()] in hosts

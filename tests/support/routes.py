"""Routes and targets for Hypothesis: few enough of each that they meet."""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st

from session_proxy.policy.ports import PortSet
from session_proxy.policy.rules import Rule
from session_proxy.target import Target

LABELS = st.sampled_from(["a", "b", "www", "x-y"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PORTS = st.integers(1, 12)

# Addresses in which only the first four and the last four bits vary, so that networks contain one another.
V4 = st.tuples(st.integers(0, 15), st.integers(0, 15)).map(
    lambda ab: ipaddress.IPv4Address(ab[0] << 28 | ab[1])
)
V6 = st.tuples(st.integers(0, 15), st.integers(0, 15)).map(
    lambda ab: ipaddress.IPv6Address(ab[0] << 124 | ab[1])
)
# What is mapped into IPv6 has to follow the rules for IPv4.
MAPPED = V4.map(lambda address: ipaddress.IPv6Address((0xFFFF << 32) | int(address)))
ADDRESSES = V4 | V6 | MAPPED


@st.composite
def networks(draw: st.DrawFn) -> str:
    """A CIDR without host bits."""
    address = draw(V4 | V6)
    length = draw(st.sampled_from([0, 1, 2, 3, 4, address.max_prefixlen - 2, address.max_prefixlen]))
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False))


@st.composite
def port_sets(draw: st.DrawFn) -> PortSet:
    """A few ports and ranges."""
    pairs = draw(st.lists(st.tuples(PORTS, PORTS).map(sorted), min_size=1, max_size=3))
    return PortSet.parse(f"{first}-{last}" for first, last in pairs)


MATCHES = networks() | NAMES | NAMES.map(lambda name: f"*.{name}") | st.just("*")


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Any rule."""
    rule = Rule.of(
        draw(st.lists(MATCHES, min_size=1, max_size=3)),
        draw(st.sampled_from(["direct", "reject", "one", "two"])),
        resolve=draw(st.sampled_from(["remote", "local"])),
    )
    ports = draw(st.none() | port_sets())
    return Rule(match=rule.match, ports=ports, upstream=rule.upstream, resolve=rule.resolve)


ROUTES = st.lists(rules(), max_size=12)
HOSTS = NAMES | ADDRESSES.map(str)
TARGETS = st.builds(Target.of, HOSTS, PORTS)

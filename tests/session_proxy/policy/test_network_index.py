from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from session_proxy.policy.first_by_port import NO_RULE
from session_proxy.policy.network_index import NetworkIndex
from session_proxy.policy.rules import Rule
from tests.support.routes import ADDRESSES, PORTS, networks, port_sets


@given(st.lists(st.tuples(networks(), st.none() | port_sets()), max_size=10), ADDRESSES, PORTS)
def test_the_first_network_round_an_address_is_found(
    described: list[tuple[str, object]], address: ipaddress.IPv4Address, port: int
) -> None:
    rules = [
        (index, Rule.of(text, "x", [] if ports is None else str(ports).split(", ")))
        for index, (text, ports) in enumerate(described)
    ]

    taking = (
        index
        for index, rule in rules
        if (rule.ports is None or rule.ports.contains(port))
        and any(address in network for network in rule.networks())
    )
    assert NetworkIndex.build(rules).first(address, port, NO_RULE) == next(taking, NO_RULE)


def test_the_whole_range_of_addresses_is_covered() -> None:
    index = NetworkIndex.build(list(enumerate([Rule.of("0.0.0.0", "x"), Rule.of("255.255.255.255", "x")])))

    def first(text: str) -> int:
        return index.first(ipaddress.ip_address(text), 1, NO_RULE)

    assert [first(text) for text in ("0.0.0.0", "0.0.0.1", "255.255.255.254", "255.255.255.255", "::")] == [
        0,
        NO_RULE,
        NO_RULE,
        1,
        NO_RULE,
    ]


def test_what_has_been_found_elsewhere_bounds_the_search() -> None:
    index = NetworkIndex.build([(5, Rule.of("10.0.0.0/8", "x"))])

    assert index.first(ipaddress.ip_address("10.0.0.1"), 1, 3) == 3


def test_networks_that_decide_nothing_are_left_out() -> None:
    """A thousand networks round an address cost nothing where the first of them decides."""
    rules = [Rule.of("10.0.0.0/8", "x"), *(Rule.of(f"10.0.0.0/{length}", "x") for length in range(9, 33))]
    chains = NetworkIndex.build(list(enumerate(rules))).v4.chains

    assert max(map(len, chains)) == 1

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from session_proxy.policy.explain import explain
from session_proxy.policy.route_table import RouteTable
from session_proxy.policy.rules import Address, Decision, Rule
from session_proxy.target import Target
from tests.support.routes import ADDRESSES, ROUTES, TARGETS

RESOLVED = st.lists(ADDRESSES, max_size=3)


def decide(rules: Sequence[Rule], target: str, addresses: Sequence[str] = ()) -> str:
    table = RouteTable.build(rules, "direct")
    return table.decide(Target.parse(target), [ipaddress.ip_address(address) for address in addresses]).rule


@given(ROUTES, TARGETS, RESOLVED)
def test_the_table_agrees_with_a_scan(rules: list[Rule], target: Target, resolved: list[Address]) -> None:
    """Whatever the kinds of the matches, the first rule in file order decides."""
    addresses = resolved if target.address is None else []

    assert RouteTable.build(rules, "direct").decide(target, addresses) == (
        explain(rules, "direct", target, addresses).decision
    )


@given(ROUTES, TARGETS, RESOLVED)
def test_addresses_are_wanted_where_they_could_matter(
    rules: list[Rule], target: Target, resolved: list[Address]
) -> None:
    """Where the table does not ask for a look-up, no answer would have changed the decision."""
    table = RouteTable.build(rules, "direct")

    if target.address is not None or not table.wants_addresses(target):
        assert not (target.address is not None and table.wants_addresses(target))
        assert table.decide(target, resolved if target.address is None else []) == table.decide(target)


def test_no_match_is_the_default() -> None:
    assert RouteTable.build([], "reject").decide(Target.parse("a:1")) == Decision("default", ("reject",))


def test_the_first_rule_wins_whatever_its_kind() -> None:
    """A narrower network or a longer name does not win over an earlier rule."""
    rules = [
        Rule.of("10.0.0.0/8", "a"),
        Rule.of("10.1.0.0/16", "b"),
        Rule.of("*.prod.internal", "c", [443]),
        Rule.of("db.prod.internal", "d"),
        Rule.of("*", "e"),
    ]

    assert decide(rules, "10.1.2.3:80") == "routes[0]"
    assert decide(rules, "db.prod.internal:443") == "routes[2]"
    assert decide(rules, "db.prod.internal:80") == "routes[3]"
    assert decide(rules, "prod.internal:443") == "routes[4]"
    assert decide(rules, "[2001:db8::1]:80") == "routes[4]"


def test_rules_with_the_same_match_are_told_apart_by_port() -> None:
    rules = [
        Rule.of("a", "x", ["100-200"]),
        Rule.of("a", "y", ["50-150", "201"]),
        Rule.of("a", "z", ["300"]),
    ]

    decided = {
        port: decide(rules, f"a:{port}") for port in (49, 50, 99, 100, 150, 151, 200, 201, 202, 300, 65535)
    }
    assert decided == {
        49: "default",
        50: "routes[1]",
        99: "routes[1]",
        100: "routes[0]",
        150: "routes[0]",
        151: "routes[0]",
        200: "routes[0]",
        201: "routes[1]",
        202: "default",
        300: "routes[2]",
        65535: "default",
    }


def test_names_meet_networks_only_where_the_rule_resolves_here() -> None:
    rules = [Rule.of("10.0.0.0/8", "a"), Rule.of("10.0.0.0/8", "b", resolve="local"), Rule.of("*", "c")]

    assert decide(rules, "db:1", ["10.0.0.1"]) == "routes[1]"
    assert decide(rules, "db:1", ["11.0.0.1"]) == "routes[2]"
    assert decide(rules, "db:1") == "routes[2]"
    assert decide(rules, "10.0.0.1:1") == "routes[0]"


def test_a_name_is_looked_up_only_before_the_rule_that_takes_it() -> None:
    rules = [Rule.of("a", "x"), Rule.of("10.0.0.0/8", "y", [80], resolve="local"), Rule.of("b", "z")]
    table = RouteTable.build(rules, "direct")

    wanted = {
        text: table.wants_addresses(Target.parse(text)) for text in ("a:80", "b:80", "b:81", "10.0.0.1:80")
    }
    assert wanted == {"a:80": False, "b:80": True, "b:81": False, "10.0.0.1:80": False}


def test_a_table_does_not_print_its_rules() -> None:
    table = RouteTable.build([Rule.of(f"h{i}", "a") for i in range(1000)], "direct")

    assert len(repr(table)) < 200

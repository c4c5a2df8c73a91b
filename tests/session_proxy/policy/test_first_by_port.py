from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from session_proxy.policy.first_by_port import NO_RULE, FirstByPort, first_by_port
from session_proxy.policy.ports import PortSet
from session_proxy.policy.rules import AnyMatch, Rule
from tests.support.routes import port_sets


def on(ports: PortSet | None) -> Rule:
    return Rule(match=(AnyMatch(),), ports=ports, upstream=("direct",))


@given(st.lists(st.none() | port_sets(), max_size=6))
def test_the_first_rule_that_includes_a_port_is_found(port_lists: list[PortSet | None]) -> None:
    found = FirstByPort.build((index, on(ports)) for index, ports in enumerate(port_lists))

    for port in (*range(1, 14), 65535):
        including = (i for i, ports in enumerate(port_lists) if ports is None or ports.contains(port))
        assert found.at(port) == next(including, NO_RULE)


def test_the_extremes_count_every_port() -> None:
    ports = PortSet.parse(["1-65535"])

    assert (found := FirstByPort.build([(7, on(PortSet.parse([80]))), (9, on(ports))])).first == 7
    assert found.last == 9
    assert FirstByPort.build([(7, on(PortSet.parse([80])))]).last == NO_RULE
    assert FirstByPort.build([]).first == NO_RULE


def test_rules_are_gathered_by_key() -> None:
    found = first_by_port([("a", (3, on(None))), ("b", (1, on(None))), ("a", (2, on(PortSet.parse([80]))))])

    assert {key: (rules.at(80), rules.at(81)) for key, rules in found.items()} == {"a": (2, 3), "b": (1, 1)}

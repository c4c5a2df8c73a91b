from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.policy.explain import explain
from session_proxy.policy.rules import Address, Rule
from session_proxy.policy.shadowing import Shadow, find_shadows
from session_proxy.target import Target
from tests.support.routes import ADDRESSES, ROUTES, TARGETS

Text = str | list[str]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("*", "10.0.0.0/8"),
        ("*", "*"),
        ("*", ["a", "*.b", "::/0"]),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8", "10.1.0.0/16"),
        ("0.0.0.0/0", "10.0.0.1"),
        ("*.internal", "*.prod.internal"),
        ("*.internal", "db.prod.internal"),
        ("a", "A."),
        (["10.0.0.0/9", "10.128.0.0/9"], "10.0.0.0/8"),
        (["a", "b", "*.c"], ["b", "x.c"]),
    ],
)
def test_one_earlier_rule_that_takes_everything_hides(earlier: Text, later: Text) -> None:
    rules = [Rule.of("unrelated", "x"), Rule.of(earlier, "x"), Rule.of(later, "y")]

    assert find_shadows(rules) == [Shadow(2, 1)]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("10.1.0.0/16", "10.0.0.0/8"),
        ("0.0.0.0/0", "::/0"),
        ("0.0.0.0/0", "a"),
        ("*.internal", "internal"),
        ("a", ["a", "b"]),
        (["10.0.0.0/9", "11.0.0.0/9"], "10.0.0.0/8"),
        (["0.0.0.0/0", "::/0"], "*"),
    ],
)
def test_a_rule_that_still_decides_something_is_not_hidden(earlier: Text, later: Text) -> None:
    assert find_shadows([Rule.of(earlier, "x"), Rule.of(later, "y")]) == []


@pytest.mark.parametrize(
    ("earlier", "later", "hidden"),
    [
        ([], [443], True),
        ([443], [], False),
        (["1-65535"], [], True),
        (["400-500"], [443], True),
        ([80], [443], False),
    ],
)
def test_ports_count(earlier: list[str | int], later: list[str | int], hidden: bool) -> None:
    assert bool(find_shadows([Rule.of("a", "x", earlier), Rule.of("a", "y", later)])) is hidden


def test_several_rules_together_hide_nothing() -> None:
    """Only one earlier rule alone is an error: splitting over rules is how exceptions are written."""
    rules = [Rule.of("a", "x", ["1-99"]), Rule.of("a", "y", ["100-65535"]), Rule.of("a", "z")]

    assert find_shadows(rules) == []


@pytest.mark.parametrize(
    ("match", "earlier", "later", "hidden"),
    [
        ("10.0.0.0/8", "remote", "local", False),
        ("10.0.0.0/8", "local", "remote", True),
        ("10.0.0.0/8", "local", "local", True),
        ("a", "remote", "local", True),
        ("*", "remote", "local", True),
    ],
)
def test_resolving_here_takes_more(
    match: str, earlier: Literal["remote", "local"], later: Literal["remote", "local"], hidden: bool
) -> None:
    rules = [Rule.of(match, "x", resolve=earlier), Rule.of(match, "y", resolve=later)]

    assert bool(find_shadows(rules)) is hidden


def test_rules_that_match_nothing_are_passed_over() -> None:
    assert (
        find_shadows([Rule(match=(), upstream=("x",)), Rule.of("a", "x"), Rule(match=(), upstream=("x",))])
        == []
    )


def test_a_chain_names_the_first_that_hides() -> None:
    assert find_shadows([Rule.of("*.a", "x"), Rule.of("b.a", "y"), Rule.of("b.a", "z")]) == [
        Shadow(1, 0),
        Shadow(2, 0),
    ]


@given(ROUTES, TARGETS, st.lists(ADDRESSES, max_size=2))
def test_a_hidden_rule_never_decides(rules: list[Rule], target: Target, resolved: list[Address]) -> None:
    """Taking hidden rules out changes no decision."""
    addresses = resolved if target.address is None else []
    hidden = {f"routes[{shadow.index}]" for shadow in find_shadows(rules)}

    assert explain(rules, "direct", target, addresses).decision.rule not in hidden


def test_many_rules_are_checked_quickly() -> None:
    """20 000 rules do not meet one another pair by pair: this would take minutes."""
    rules = [Rule.of(f"10.{i >> 8}.{i & 255}.0/24", "a") for i in range(10_000)]
    rules += [Rule.of(f"*.h{i}.example.com", "b") for i in range(10_000)]

    assert find_shadows([*rules, Rule.of("10.0.9.9", "c")]) == [Shadow(20_000, 9)]

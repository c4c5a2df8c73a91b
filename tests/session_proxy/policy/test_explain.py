from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest

from session_proxy.policy.explain import Explanation, Resolution
from session_proxy.policy.explain import explain as explain_target
from session_proxy.policy.rules import Rule
from session_proxy.target import Target

RULES = [
    Rule.of("10.0.0.0/8", "dev", [443]),
    Rule.of(["*.prod.internal", "prod.internal"], ["dev", "direct"], [443, "8000-8999"]),
    Rule.of("192.168.0.0/16", "home", resolve="local"),
    Rule.of([f"h{i}" for i in range(9)], "reject"),
    Rule.of("*", "direct", [25]),
]


def explain(target: str, addresses: Sequence[str] = ()) -> Explanation:
    return explain_target(RULES, "dev", Target.parse(target), [ipaddress.ip_address(a) for a in addresses])


def reasons(explanation: Explanation) -> list[str]:
    return [considered.why for considered in explanation.considered]


def test_every_rule_before_the_one_that_decides_says_why_not() -> None:
    explanation = explain("db.prod.internal:443")

    assert [(considered.rule, considered.matched) for considered in explanation.considered] == [
        ("routes[0]", False),
        ("routes[1]", True),
    ]
    assert reasons(explanation) == [
        '10.0.0.0/8 takes addresses; names only with resolve = "local"',
        "db.prod.internal is below prod.internal",
    ]
    assert explanation.considered[1].ports == "443, 8000-8999"
    assert (explanation.outcome, explanation.not_considered) == ("rule", 3)


@pytest.mark.parametrize(
    ("target", "addresses", "rule", "why"),
    [
        ("10.1.2.3:80", [], 0, "10.0.0.0/8 holds 10.1.2.3, but port 80 is not among 443"),
        ("11.1.2.3:443", [], 0, "10.0.0.0/8 does not hold 11.1.2.3"),
        ("10.1.2.3:443", [], 0, "10.0.0.0/8 holds 10.1.2.3"),
        (
            "11.1.2.3:443",
            [],
            1,
            "*.prod.internal takes names, not addresses; prod.internal does not take 11.1.2.3",
        ),
        ("prod.internal:443", [], 1, "it is prod.internal"),
        ("nas:1", [], 2, "192.168.0.0/16 takes addresses, and nas has none here"),
        ("nas:1", ["10.0.0.1"], 2, "192.168.0.0/16 holds none of 10.0.0.1"),
        (
            "nas:1",
            ["10.0.0.1", "192.168.0.9"],
            2,
            "192.168.0.0/16 holds 192.168.0.9, to which nas resolves here",
        ),
        (
            "nas:1",
            [],
            3,
            "h0 does not take nas; h1 does not take nas; h2 does not take nas; nor do 6 more",
        ),
        ("nas:25", [], 4, "* takes everything"),
        ("nas:1", [], 4, "* takes everything, but port 1 is not among 25"),
    ],
)
def test_reasons(target: str, addresses: list[str], rule: int, why: str) -> None:
    assert reasons(explain(target, addresses))[rule] == why


def test_a_glob_hints_at_the_name_it_misses() -> None:
    explanation = explain_target([Rule.of("*.a.b", "x")], "direct", Target.parse("a.b:1"))

    assert reasons(explanation) == ['*.a.b takes names below a.b, not a.b itself: list "a.b" too']


@pytest.mark.parametrize(
    ("target", "outcome"), [("h1:1", "reject"), ("nas:1", "default"), ("nas:25", "rule")]
)
def test_outcomes(target: str, outcome: str) -> None:
    assert explain(target).outcome == outcome


def test_a_default_that_rejects_is_a_rejection() -> None:
    assert explain_target([], "reject", Target.parse("a:1")).outcome == "reject"


def test_where_names_are_resolved() -> None:
    assert explain("db.prod.internal:443").resolution == (
        Resolution("dev", "at the far end of dev"),
        Resolution("direct", "on this machine"),
    )
    assert explain("10.0.0.1:443").resolution == (Resolution("dev", "nowhere: it is an address"),)
    assert explain("h1:1").resolution == (Resolution("reject", "nowhere: the connection is refused"),)


def test_addresses_are_reported() -> None:
    assert explain("nas:1", ["10.0.0.1", "::1"]).addresses == ("10.0.0.1", "::1")

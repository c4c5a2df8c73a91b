from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.policy.rules import (
    AnyMatch,
    CidrMatch,
    Decision,
    GlobMatch,
    InvalidRuleError,
    Match,
    NameMatch,
    Rule,
    matches,
    parse_match,
)
from session_proxy.target import Target
from tests.support.routes import ADDRESSES, NAMES, networks


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("10.0.0.0/8", CidrMatch(ipaddress.ip_network("10.0.0.0/8")), "10.0.0.0/8"),
        ("0.0.0.0/0", CidrMatch(ipaddress.ip_network("0.0.0.0/0")), "0.0.0.0/0"),
        ("2001:DB8::/32", CidrMatch(ipaddress.ip_network("2001:db8::/32")), "2001:db8::/32"),
        ("[2001:db8::]/32", CidrMatch(ipaddress.ip_network("2001:db8::/32")), "2001:db8::/32"),
        ("10.0.0.1", CidrMatch(ipaddress.ip_network("10.0.0.1/32")), "10.0.0.1"),
        ("[::1]", CidrMatch(ipaddress.ip_network("::1/128")), "::1"),
        ("::ffff:10.0.0.1", CidrMatch(ipaddress.ip_network("10.0.0.1/32")), "10.0.0.1"),
        ("::ffff:10.0.0.0/104", CidrMatch(ipaddress.ip_network("10.0.0.0/8")), "10.0.0.0/8"),
        ("::/0", CidrMatch(ipaddress.ip_network("::/0")), "::/0"),
        ("Prod.Internal.", NameMatch("prod.internal"), "prod.internal"),
        ("BÜCHER.example", NameMatch("xn--bcher-kva.example"), "xn--bcher-kva.example"),
        ("*.Bücher.example.", GlobMatch("xn--bcher-kva.example"), "*.xn--bcher-kva.example"),
        ("*", AnyMatch(), "*"),
    ],
)
def test_matches_are_read_in_canonical_form(text: str, expected: Match, shown: str) -> None:
    match = parse_match(text)

    assert match == expected
    assert str(match) == shown
    assert parse_match(shown) == expected


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("", '"*.NAME"'),
        (" 10.0.0.0/8", "CIDR"),
        ("10.1.2.3/8", 'write "10.0.0.0/8" for the network, or "10.1.2.3" for that one address'),
        ("2001:db8::1/32", 'write "2001:db8::/32" for the network, or "2001:db8::1" for that one address'),
        ("10.0.0.0/33", 'write a number up to 32, such as "10.0.0.0/32"'),
        ("::/129", 'write a number up to 128, such as "::/128"'),
        ("10.0.0.0/", 'such as "10.0.0.0/32"'),
        ("10.0.0.0/255.0.0.0", 'write "10.0.0.0/8"'),
        ("10.0.0/8", '"ADDRESS/LENGTH"'),
        ("fe80::%eth0/64", '"ADDRESS/LENGTH"'),
        ("prod.internal/8", '"ADDRESS/LENGTH"'),
        ("https://prod.internal/", "write its host alone"),
        ("prod.internal:443", 'write "prod.internal", and the port as ports = 443'),
        (".prod.internal", 'write "*.prod.internal" for every name below it'),
        ("web-*.prod.internal", 'write "*.prod.internal"'),
        ("*.*.prod.internal", "CIDR"),
        ("*prod.internal", 'write "*.internal"'),
        ("web?", 'write "*"'),
        ("*.10.0.0.1", "CIDR"),
        ("10.0.0.256", "CIDR"),
        ("a..b", "CIDR"),
        ("two words", "CIDR"),
        ("x" * 64, "CIDR"),
    ],
)
def test_what_matches_nothing_is_refused_with_what_to_write(text: str, fix: str) -> None:
    with pytest.raises(InvalidRuleError) as info:
        parse_match(text)

    assert fix in info.value.fix


@given(st.text())
def test_any_text_is_a_match_or_a_documented_error(text: str) -> None:
    try:
        match = parse_match(text)
    except InvalidRuleError:
        return

    assert parse_match(str(match)) == match


@given(networks(), ADDRESSES)
def test_a_network_takes_the_addresses_in_it(network: str, address: ipaddress.IPv4Address) -> None:
    target = Target.of(str(address), 1)
    assert target.address is not None

    assert matches(parse_match(network), target) == (target.address in ipaddress.ip_network(network))


@given(NAMES, NAMES)
def test_a_glob_takes_every_depth_below_its_name_but_not_the_name(name: str, suffix: str) -> None:
    glob = parse_match(f"*.{suffix}")

    assert matches(glob, Target.of(f"{name}.{suffix}", 1))
    assert not matches(glob, Target.of(suffix, 1))
    assert not matches(glob, Target.of(f"z{suffix}", 1))


def test_a_network_takes_a_name_only_by_its_addresses() -> None:
    match, target = parse_match("10.0.0.0/8"), Target.of("db", 1)

    assert not matches(match, target)
    assert not matches(match, target, [ipaddress.ip_address("11.0.0.1")])
    assert matches(match, target, [ipaddress.ip_address("11.0.0.1"), ipaddress.ip_address("::ffff:10.0.0.1")])


def test_rules_are_built_from_text() -> None:
    rule = Rule.of(["*.a", "b"], ["one", "two"], [443, "8000-8999"])

    assert (rule.match, str(rule.ports)) == ((GlobMatch("a"), NameMatch("b")), "443, 8000-8999")
    assert rule.upstream == ("one", "two")
    assert Rule.of("*", "direct").ports is None


def test_only_reject_alone_is_a_rejection() -> None:
    assert Decision("default", ("reject",)).rejected
    assert not Decision("default", ("direct",)).rejected

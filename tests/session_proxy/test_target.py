from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.errors import InvalidTargetError
from session_proxy.target import Target, canonical_host, split_host_port


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        ("Example.COM.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("under_score", "under_score"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("[::FFFF:a00:1]", "10.0.0.1"),
        ("a" * 63 + ".b", "a" * 63 + ".b"),
    ],
)
def test_hosts_have_one_spelling(host: str, canonical: str) -> None:
    assert canonical_host(host) == canonical
    assert canonical_host(canonical) == canonical


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "is empty"),
        (".", "is empty"),
        ("a..b", "1 to 63 characters"),
        ("a" * 64, "1 to 63 characters"),
        ("a b", "is not a host name"),
        ("a/b", "is not a host name"),
        ("a:b", "is not a host name"),
        ("a\0b", "is not a host name"),
        ("ab\u2066.example", "is not a host name"),
        ("1.2.3", "is not an IPv4 address"),
        ("0x7f.1", "is not an IPv4 address"),
        ("0x7f000001", "is not an IPv4 address"),
        ("127.0.0.0X1", "is not an IPv4 address"),
        ("2130706433", "is not an IPv4 address"),
        ("a.0x", "is not an IPv4 address"),
        ("256.1.1.1", "is not an IPv4 address"),
        ("010.0.0.1", "is not an IPv4 address"),
        (".".join(["abcdefg"] * 32), "at most 253"),
    ],
)
def test_what_is_no_host_is_refused(host: str, reason: str) -> None:
    """An address in a spelling that resolvers would take must not pass for a name, past every rule."""
    with pytest.raises(InvalidTargetError, match=reason):
        canonical_host(host)


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a:0", ("a", 0)), ("[::1]:65535", ("[::1]", 65535)), (":1", ("", 1)), ("a:007", ("a", 7))],
)
def test_host_and_port_are_split(text: str, parts: tuple[str, int]) -> None:
    assert split_host_port(text) == parts


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", "has no port"),
        ("::1:80", r"\[ADDRESS\]:PORT"),
        ("a:", "is not a port"),
        ("a:x", "is not a port"),
        ("a:-1", "is not a port"),
        ("a:65536", "is not a port"),
        ("a:" + "9" * 5000, "is not a port"),
        ("a:\u0661", "is not a port"),
    ],
)
def test_what_cannot_be_split_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidTargetError, match=reason):
        split_host_port(text)


def test_targets_have_a_port_to_connect_to() -> None:
    with pytest.raises(InvalidTargetError, match="0 is not a port"):
        Target.parse("a:0")
    with pytest.raises(InvalidTargetError, match="65536 is not a port"):
        Target.of("a", 65536)


def test_targets_know_whether_they_are_addresses() -> None:
    assert Target.parse("a:1").address is None
    assert Target.parse("[2001:DB8::1]:1").address == ipaddress.ip_address("2001:db8::1")


@given(st.ip_addresses() | st.sampled_from(["a", "b.c", "x_y.z"]), st.integers(1, 65535))
def test_targets_are_read_as_they_are_written(host: object, port: int) -> None:
    target = Target.of(str(host), port)

    assert Target.parse(str(target)) == target


@given(st.text())
def test_any_text_is_a_host_or_a_documented_error(text: str) -> None:
    try:
        host = canonical_host(text)
    except InvalidTargetError:
        return

    assert host.isascii()
    assert canonical_host(host) == host


@given(st.ip_addresses() | st.just(ipaddress.ip_address("::ffff:10.0.0.1")), st.integers(1, 65535))
def test_targets_of_addresses_are_those_of_their_text(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    target = Target.of_address(address, port)

    assert target == Target.of(str(address), port)
    assert target.address == Target.of(str(address), port).address


def test_a_target_of_an_address_has_a_port_to_connect_to() -> None:
    with pytest.raises(InvalidTargetError, match="0 is not a port"):
        Target.of_address(ipaddress.ip_address("::1"), 0)


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("https://vpn.example.com:4443", "write vpn.example.com:4443"),
        ("HTTPS://vpn.example.com", "write vpn.example.com:443"),
        ("http://vpn.example.com/a:1?b#c", "write vpn.example.com:80"),
        ("https://[2001:db8::1]", "write [2001:db8::1]:443"),
        ("udp://user:secret@vpn.example.com:443/", "write vpn.example.com:443"),
        ("udp://vpn.example.com", "write HOST:PORT"),
        ("https://::1:4443", "write HOST:PORT"),
        ("https://user:secret@/", "write HOST:PORT"),
        ("://", "write HOST:PORT"),
    ],
)
def test_a_url_is_named_as_such_and_never_repeated(url: str, fix: str) -> None:
    """It may have a password in it."""
    with pytest.raises(InvalidTargetError) as info:
        split_host_port(url)

    assert str(info.value) == f"is a URL; {fix}"

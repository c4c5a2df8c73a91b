from __future__ import annotations

import socket

import pytest

from awg_obfs.addresses import (
    ANY_IPV4,
    ANY_IPV6,
    SocketAddress,
    any_address_like,
    family_of,
    from_socket,
    is_any,
    shown,
    to_socket,
)
from awg_obfs.protocol.address import Address, address_bytes

V4: Address = ("192.0.2.7", 4500)
V6: Address = ("2001:db8::7", 4500)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (V4, V4),
        (("2001:db8::7", 4500, 0, 0), V6),
        (("::ffff:192.0.2.7", 4500, 0, 0), V4),
        (("::ffff:1:2", 4500, 0, 0), ("::ffff:1:2", 4500)),
        (("fe80::1", 4500, 0, 3), ("fe80::1%3", 4500)),
        (("2001:db8::7", 4500, 99, 0), V6),
    ],
)
def test_what_a_socket_says(given: SocketAddress, expected: Address) -> None:
    assert from_socket(given) == expected
    # The device makes bytes of it, for its cookies.
    assert address_bytes(expected)


@pytest.mark.parametrize(
    ("address", "family", "expected"),
    [
        (V4, socket.AF_INET, V4),
        (V6, socket.AF_INET, None),
        (V4, socket.AF_INET6, ("::ffff:192.0.2.7", 4500, 0, 0)),
        (V6, socket.AF_INET6, ("2001:db8::7", 4500, 0, 0)),
        (("fe80::1%3", 4500), socket.AF_INET6, ("fe80::1", 4500, 0, 3)),
        (("fe80::1%no-such-interface", 4500), socket.AF_INET6, None),
    ],
)
def test_what_a_socket_takes(
    address: Address, family: socket.AddressFamily, expected: SocketAddress | None
) -> None:
    assert to_socket(address, family) == expected


def test_a_zone_may_be_given_by_name() -> None:
    index, name = socket.if_nameindex()[0]
    assert to_socket((f"fe80::1%{name}", 1), socket.AF_INET6) == ("fe80::1", 1, 0, index)


def test_families() -> None:
    assert family_of(V4) == socket.AF_INET
    assert family_of(V6) == socket.AF_INET6
    assert any_address_like(V4) == ANY_IPV4
    assert any_address_like(V6) == ANY_IPV6
    assert is_any(ANY_IPV4)
    assert is_any(ANY_IPV6)
    assert not is_any(V6)


def test_addresses_for_people() -> None:
    assert shown(V4) == "192.0.2.7:4500"
    assert shown(V6) == "[2001:db8::7]:4500"

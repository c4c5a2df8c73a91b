from __future__ import annotations

import pytest

from session_proxy.profile.addresses import collide, is_loopback
from session_proxy.profile.model import ListenAddress


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("proxy.localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("proxy", False),
        ("localhost.example.com", False),
    ],
)
def test_only_this_machine_reaches_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(ListenAddress(host, 1)) is loopback


@pytest.mark.parametrize(
    ("one", "other", "collides"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("10.0.0.1", "0.0.0.0", True),
        ("::1", "0.0.0.0", False),
        ("::1", "::", True),
        ("127.0.0.1", "::", False),
        ("0.0.0.0", "::", False),
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("localhost", "127.0.0.2", False),
        ("localhost", "0.0.0.0", True),
        ("proxy", "127.0.0.1", False),
        ("proxy", "0.0.0.0", False),
    ],
)
def test_addresses_collide_however_they_are_written(one: str, other: str, collides: bool) -> None:
    for first, second in ((one, other), (other, one)):
        assert collide(ListenAddress(first, 80), ListenAddress(second, 80)) is collides
        assert not collide(ListenAddress(first, 80), ListenAddress(second, 81))
        assert not collide(ListenAddress(first, 0), ListenAddress(second, 0)), "any two free ports"

from __future__ import annotations

import pytest

from session_proxy.profile.checks import is_loopback, profile_warnings
from session_proxy.profile.model import Auth, ListenAddress, Profile
from session_proxy.profile.secret import Secret


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


def test_permission_that_does_nothing_is_warned_of() -> None:
    auth = Auth(user="u", password=Secret("literal", "", "p"))

    assert list(profile_warnings(Profile(auth=auth, allow_anonymous=True))) == [
        "allow_anonymous: does nothing here; clients have to present the credentials of auth"
    ]
    assert list(profile_warnings(Profile(auth=auth))) == []

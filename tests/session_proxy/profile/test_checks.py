from __future__ import annotations

from session_proxy.profile.checks import profile_warnings
from session_proxy.profile.model import Auth, Profile
from session_proxy.profile.secret import Secret


def test_permission_that_does_nothing_is_warned_of() -> None:
    auth = Auth(user="u", password=Secret("literal", "", "p"))

    assert list(profile_warnings(Profile(auth=auth, allow_anonymous=True), 0.0)) == [
        "allow_anonymous: does nothing here; clients have to present the credentials of auth"
    ]
    assert list(profile_warnings(Profile(auth=auth), 0.0)) == []

from __future__ import annotations

from collections.abc import Sequence

import pytest

from session_proxy.policy.rules import Rule
from session_proxy.profile.model import ListenAddress, Profile, SsmUpstream, Startup


def profile(routes: Sequence[list[str]], default: str = "direct", startup: Startup | None = None) -> Profile:
    upstream = SsmUpstream(instances=("i-1",), startup=startup)
    rules = tuple(Rule.of(f"h{index}", upstreams) for index, upstreams in enumerate(routes))
    return Profile(default=default, upstreams={"dev": upstream, "edge": upstream}, routes=rules)


@pytest.mark.parametrize(
    ("routes", "default", "expected"),
    [
        ([["dev"]], "direct", "required"),
        ([["dev", "edge"]], "direct", "background"),
        ([["edge", "dev"], ["dev", "edge"]], "direct", "background"),
        ([["edge", "dev"], ["dev"]], "direct", "required"),
        ([["dev", "direct"]], "direct", "background"),
        ([["dev", "edge"]], "dev", "required"),
        ([["dev", "edge"]], "edge", "background"),
        ([], "dev", "required"),
        ([], "direct", "required"),
    ],
)
def test_an_upstream_is_required_unless_every_route_has_another(
    routes: list[list[str]], default: str, expected: str
) -> None:
    assert profile(routes, default).startup_of("dev") == expected


def test_a_key_decides_whatever_the_routes_say() -> None:
    assert profile([["dev"]], startup="background").startup_of("dev") == "background"
    assert profile([["dev", "edge"]], startup="required").startup_of("dev") == "required"


def test_listen_addresses_are_written_as_people_do() -> None:
    assert [str(ListenAddress(host, 1)) for host in ("::1", "127.0.0.1")] == ["[::1]:1", "127.0.0.1:1"]

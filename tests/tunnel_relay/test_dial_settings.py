from __future__ import annotations

import pytest

from tunnel_relay.dial_settings import connect_url, no_proxy


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://relay.example", "wss://relay.example/api/tunnel/connect"),
        ("wss://relay.example:444/", "wss://relay.example:444/api/tunnel/connect"),
        ("ws://[::1]:1/behind/here", "ws://[::1]:1/behind/here"),
    ],
)
def test_a_url_without_a_path_means_the_usual_one(url: str, expected: str) -> None:
    assert connect_url(url, ()) == expected


def test_a_query_says_who_asks() -> None:
    url = connect_url("wss://relay.example", [("agent", "n s"), ("instance", "1")])
    assert url == "wss://relay.example/api/tunnel/connect?agent=n+s&instance=1"


def test_there_is_no_proxy_unless_one_is_named() -> None:
    assert no_proxy("wss://relay.example") is None

"""The heads of upgrade requests."""

from __future__ import annotations

import pytest

from tunnel_relay.protocol.tokens import Claims, Scope
from tunnel_relay.server.admission import AdmissionError, Asking, check_scope, read_asking

HEADERS = {"authorization": "Bearer abc"}


@pytest.mark.parametrize(
    ("query", "asking"),
    [
        ("", Asking("abc")),
        ("agent=nas&instance=one", Asking("abc", "nas", "one")),
        ("instance=1&agent=the%20nas", Asking("abc", "the nas", "1")),
    ],
)
def test_what_is_asked_for(query: str, asking: Asking) -> None:
    assert read_asking(query, HEADERS) == asking
    assert read_asking(query, {"authorization": "bearer  abc "}) == asking


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 401),
        ("", {"authorization": "Basic abc"}, 401),
        ("user=root", HEADERS, 400),
        ("agent=nas", HEADERS, 400),
        ("instance=one", HEADERS, 400),
        ("agent=&instance=one", HEADERS, 400),
        ("agent=nas&agent=nas&instance=one", HEADERS, 400),
        ("agent=a%0Ab&instance=one", HEADERS, 400),
        (f"agent={'x' * 65}&instance=one", HEADERS, 400),
    ],
)
def test_what_makes_no_sense(query: str, headers: dict[str, str], status: int) -> None:
    with pytest.raises(AdmissionError) as caught:
        read_asking(query, headers)
    assert caught.value.status == status


def test_a_scope_must_hold_what_is_asked_for() -> None:
    client, agent = Asking("abc"), Asking("abc", "nas", "one")
    for asking, scope in ((client, Scope.CLIENT), (agent, Scope.AGENT)):
        check_scope(asking, Claims("alice", 0, "", frozenset({scope}), ""))
        with pytest.raises(AdmissionError) as caught:
            check_scope(asking, Claims("alice", 0, "", frozenset(Scope) - {scope}, ""))
        assert caught.value.status == 403


def test_a_token_does_not_show() -> None:
    assert "abc" not in repr(Asking("abc"))

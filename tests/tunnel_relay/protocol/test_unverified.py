from __future__ import annotations

import pytest

from tests.support.relay_files import claims_token, encode
from tests.support.relay_tokens import make_token
from tunnel_relay.protocol.tokens import Scope
from tunnel_relay.protocol.unverified import read_token

NOW = 1_800_000_000.0


def test_a_token_says_when_it_ends_what_for_and_whose_it_is() -> None:
    said = read_token(make_token("alice", Scope.CLIENT, seconds=60, now=NOW))

    assert said is not None
    assert (said.expires, said.scopes, said.user) == (NOW + 60, {"client"}, "alice")


def test_a_token_may_say_little() -> None:
    said = read_token(claims_token(exp="soon", scope=["client"], sub=7))

    assert said is not None
    assert (said.expires, said.scopes, said.user) == (None, frozenset(), "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hunter2",
        "a.b",
        "a.b.c.d",
        "a.!.c",
        f"a.{encode(b'[]')}.c",
        f"a.{encode(b'{')}.c",
        "a.\xe4.c",
        f"a.{encode(b'{}')}.c d",
    ],
)
def test_other_text_is_no_token(text: str) -> None:
    assert read_token(text) is None

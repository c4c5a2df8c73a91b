from __future__ import annotations

import pytest

from tests.support.relay_files import claims_token, encode
from tests.support.relay_tokens import make_token
from tunnel_relay.protocol.tokens import Scope
from tunnel_relay.protocol.unverified import read_token

NOW = 1_800_000_000.0


def test_a_token_says_when_it_ends_and_what_for() -> None:
    said = read_token(make_token("alice", Scope.CLIENT, seconds=60, now=NOW))

    assert said is not None
    assert (said.expires, said.scopes) == (NOW + 60, {"client"})


def test_a_token_may_say_little() -> None:
    said = read_token(claims_token(exp="soon", scope=["client"]))

    assert said is not None
    assert (said.expires, said.scopes) == (None, frozenset())


@pytest.mark.parametrize(
    "text",
    ["", "hunter2", "a.b", "a.b.c.d", "a.!.c", f"a.{encode(b'[]')}.c", f"a.{encode(b'{')}.c", "a.\xe4.c"],
)
def test_other_text_is_no_token(text: str) -> None:
    assert read_token(text) is None

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from session_proxy.profile import relay_keys
from session_proxy.profile.relay_keys import read_jwt_keys, read_revoked, verifier_of
from session_proxy.profile.relay_model import RelayJwt
from session_proxy.profile.secret_sources import InvalidValueError, SecretSources
from tests.support.relay_files import JWKS, SIGNING, VERIFYING_PEM, jwk
from tunnel_relay.protocol.tokens import (
    Claims,
    Fault,
    Key,
    Scope,
    TokenError,
    TokenKeyError,
    issue,
)

NOW = 1_800_000_000.0
CLAIMS = Claims("alice", NOW + 60, "free", frozenset({Scope.CLIENT}), "id")
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def token(kid: str = "one", audience: str = "session-proxy", key: Ed25519PrivateKey = SIGNING) -> str:
    return issue(CLAIMS, Key("EdDSA", key, kid), audience=audience, now=NOW)


def test_a_verifier_believes_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(JWKS)
    jwt = RelayJwt(keys=SecretSources(tmp_path, {}).read("file:jwks.json"))

    assert verifier_of(jwt).verify(token(), NOW) == CLAIMS
    with pytest.raises(TokenError) as info:
        verifier_of(jwt).verify(token(audience="others"), NOW)
    assert info.value.fault is Fault.AUDIENCE


def test_new_keys_count_from_then_on(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(JWKS)
    jwt = RelayJwt(keys=SecretSources(tmp_path, {}).read("file:jwks.json"))

    file.write_text(json.dumps({"keys": [jwk("two", OTHER)]}))

    assert verifier_of(jwt).verify(token("two", key=OTHER), NOW) == CLAIMS
    with pytest.raises(TokenError, match="a key that the relay does not know"):
        verifier_of(jwt).verify(token(), NOW)
    file.unlink()
    with pytest.raises(InvalidValueError, match="cannot read"):
        verifier_of(jwt)


@pytest.mark.parametrize("text", [JWKS, VERIFYING_PEM, json.dumps(jwk()), f"\n{JWKS}"])
def test_keys_may_be_written_in_several_ways(text: str) -> None:
    (key,) = read_jwt_keys(text, ["EdDSA"]).values()

    assert key.algorithm == "EdDSA"


def test_a_secret_is_one_only_where_secrets_count() -> None:
    secret = "x" * 32

    assert read_jwt_keys(secret, ["EdDSA", "HS256"])[""].algorithm == "HS256"
    with pytest.raises(TokenKeyError, match="a secret is one line"):
        read_jwt_keys(f"{secret}\n{secret}\n", ["HS256"])
    with pytest.raises(TokenKeyError, match="neither a JWKS nor a key in PEM"):
        read_jwt_keys(secret, ["EdDSA"])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([jwk(), jwk(key=OTHER)], "two keys have the kid 'one'"),
        ([jwk(""), jwk("", OTHER)], "two keys have no kid"),
        ([], "there is no key for EdDSA"),
    ],
)
def test_keys_that_cannot_be_told_apart_are_none(members: list[dict[str, str]], message: str) -> None:
    with pytest.raises(TokenKeyError, match=message):
        read_jwt_keys(json.dumps({"keys": members}), ["EdDSA"])


def test_a_revocation_list_is_a_token_a_line(tmp_path: Path) -> None:
    file = tmp_path / "revoked.txt"
    file.write_text("# stolen in May\none\n\n  two  # a laptop\r\nthree")

    assert read_revoked(file) == {"one", "two", "three"}
    file.write_text("")
    assert read_revoked(file) == frozenset()


def test_a_revocation_list_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "revoked.txt"
    file.write_text("one\ntwo\n")
    monkeypatch.setattr(relay_keys, "MAX_REVOKED", 7)

    with pytest.raises(ValueError, match="larger than 7 bytes"):
        read_revoked(file)

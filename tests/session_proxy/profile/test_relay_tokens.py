from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from session_proxy.errors import ProfileError
from session_proxy.profile.relay_keys import read_jwt_keys
from session_proxy.profile.relay_model import Algorithm
from session_proxy.profile.relay_tokens import NewKey, new_key, public_keys, read_duration, read_signing_key
from tests.support.relay_files import JWKS, SIGNING_PEM, VERIFYING_PEM
from tunnel_relay.protocol.tokens import Claims, Scope, Verifier, issue

CLAIMS = Claims("alice", 1_800_000_060.0, "free", frozenset({Scope.CLIENT}), "id")


def made(algorithm: Algorithm) -> NewKey:
    return new_key(algorithm, lambda count: bytes(range(count)))


def written(folder: Path, text: str) -> Path:
    file = folder / "signing.json"
    file.write_text(text)
    return file


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256", "HS256"])
def test_what_a_new_key_signs_the_relay_believes(algorithm: Algorithm, tmp_path: Path) -> None:
    pair = made(algorithm)
    key = read_signing_key(written(tmp_path, pair.private), None)
    token = issue(CLAIMS, key, audience="session-proxy", now=1_800_000_000.0)

    keys = read_jwt_keys(pair.public or pair.private, [algorithm])

    assert Verifier(keys, "session-proxy").verify(token, 1_800_000_000.0) == CLAIMS
    assert key.algorithm == algorithm
    assert (key.key_id == "") is (algorithm == "HS256")


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256"])
def test_what_is_published_signs_nothing(algorithm: Algorithm, tmp_path: Path) -> None:
    pair = made(algorithm)

    assert pair.public is not None
    for secret in ("d", "p", "q", "dp", "dq", "qi"):
        assert secret not in json.loads(pair.public)["keys"][0]
    with pytest.raises(ProfileError, match="is a public key, which signs nothing; name the private one"):
        read_signing_key(written(tmp_path, pair.public), None)


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256"])
def test_what_is_published_can_be_had_again(algorithm: Algorithm, tmp_path: Path) -> None:
    pair = made(algorithm)

    assert public_keys(written(tmp_path, pair.private)) == pair.public


def test_a_key_without_a_name_is_published_without_one(tmp_path: Path) -> None:
    file = written(tmp_path, SIGNING_PEM)
    token = issue(CLAIMS, read_signing_key(file, None), audience=None, now=1_800_000_000.0)

    assert Verifier(read_jwt_keys(public_keys(file), ["EdDSA"])).verify(token, 1_800_000_000.0) == CLAIMS


def test_a_secret_is_not_published(tmp_path: Path) -> None:
    file = written(tmp_path, made("HS256").private)

    with pytest.raises(ProfileError, match="is the secret of HS256, which verifies as well"):
        public_keys(file)


def test_a_key_is_called_by_its_thumbprint() -> None:
    """The example of RFC 8037, appendix A.3."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    known = new_key("EdDSA", lambda _: seed)

    assert json.loads(known.private)["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_key_shows_nothing_of_itself() -> None:
    assert json.loads(made("EdDSA").private)["d"] not in repr(made("EdDSA"))


def test_every_key_is_another() -> None:
    assert len({made("EdDSA").private, new_key("EdDSA", lambda count: bytes(count)).private}) == 2


def test_a_key_in_pem_has_the_name_that_one_gives_it(tmp_path: Path) -> None:
    file = written(tmp_path, SIGNING_PEM)

    assert read_signing_key(file, None).key_id == ""
    key = read_signing_key(file, "one")
    assert (key.key_id, isinstance(key.material, Ed25519PrivateKey)) == ("one", True)


def test_one_of_several_keys_is_chosen(tmp_path: Path) -> None:
    members = [
        {**json.loads(made("EdDSA").private), "kid": "a"},
        {**json.loads(made("EdDSA").private), "kid": "b"},
    ]
    file = written(tmp_path, json.dumps({"keys": members}))

    assert read_signing_key(file, "b").key_id == "b"
    with pytest.raises(ProfileError, match="holds several keys; choose one with --kid: 'a', 'b'"):
        read_signing_key(file, None)
    with pytest.raises(ProfileError, match="has no key 'c'; write --kid with one of 'a', 'b'"):
        read_signing_key(file, "c")


@attrs.frozen
class Bad:
    """What is no key, and what is said of it."""

    text: str
    message: str


@pytest.mark.parametrize(
    "bad",
    [
        Bad(JWKS, "is a public key"),
        Bad(VERIFYING_PEM, "is a public key"),
        Bad("hunter2", "a secret of 7 bytes can be guessed"),
        Bad("hunter2\n" * 10, "this is no key, and a secret is one line"),
        Bad('{"keys": []}', "there is no key for EdDSA, RS256, HS256"),
        Bad('{"hunter2', "this is no JWKS, PEM key or secret"),
        Bad("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n", "this is no JWKS, PEM key or secret"),
    ],
)
def test_what_signs_nothing_is_told(bad: Bad, tmp_path: Path) -> None:
    file = written(tmp_path, bad.text)

    with pytest.raises(ProfileError) as info:
        read_signing_key(file, None)

    assert str(info.value).startswith(f"{file}: {bad.message}")
    assert "hunter2" not in str(info.value)
    assert info.value.problems[0].fix


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="there is no such file"):
        read_signing_key(tmp_path / "none", None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("15m", 900), ("12h", 43200), (" 30d ", 2_592_000), ("4w", 2_419_200)]
)
def test_durations(text: str, seconds: int) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0d", "30", "d", "-1d", "1.5d", "1y", "1d1h", "٣d", "9999999999999d"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; write a number with s, m, h, d or w"):
        read_duration(text)


def test_nothing_holds_for_ever() -> None:
    assert read_duration("3660d")
    with pytest.raises(ValueError, match="is longer than ten years"):
        read_duration("3661d")

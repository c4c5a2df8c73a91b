"""Tokens that are to be believed, and all the others."""

from __future__ import annotations

import base64
import hmac
import json
import math

import attrs
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as new_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as new_rsa_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.protocol.tokens import (
    ALGORITHMS,
    LEEWAY,
    MAX_TOKEN,
    Claims,
    Fault,
    Key,
    Scope,
    TokenError,
    TokenKeyError,
    Verifier,
    check_claims,
    expiry_of,
    issue,
    read_keys,
)

NOW = 1_800_000_000.0
SECRET = "a secret that nobody guesses, for it is long"
ED25519 = Ed25519PrivateKey.generate()
RSA = new_rsa_key(65537, 2048)
CLAIMS = Claims("alice", NOW + 600, "premium", frozenset({Scope.CLIENT}), "id-1")


def pem(key: object, *, public: bool = False) -> str:
    if public:
        return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()  # type: ignore[attr-defined, no-any-return]
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()  # type: ignore[attr-defined, no-any-return]


def jwks(**members: str) -> str:
    raw = ED25519.public_key().public_bytes_raw()
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, **members}]})


SIGNERS = {
    "HS256": read_keys(SECRET, ["HS256"])[""],
    "EdDSA": read_keys(pem(ED25519), ["EdDSA"])[""],
    "RS256": read_keys(pem(RSA), ["RS256"])[""],
}
VERIFIERS = {
    "HS256": Verifier(read_keys(SECRET, ["HS256"]), "us"),
    "EdDSA": Verifier(read_keys(pem(ED25519, public=True), ["EdDSA"]), "us"),
    "RS256": Verifier(read_keys(pem(RSA, public=True), ["RS256"]), "us"),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_issued_is_believed(algorithm: str) -> None:
    token = issue(CLAIMS, SIGNERS[algorithm], audience="us", now=NOW)
    assert VERIFIERS[algorithm].verify(token, NOW) == CLAIMS


def test_claims_hold_for_a_time_unless_they_are_revoked() -> None:
    check_claims(CLAIMS, CLAIMS.expires + LEEWAY - 1, ["id-2"])
    for now, revoked, fault in ((CLAIMS.expires + LEEWAY, [], Fault.EXPIRED), (NOW, ["id-1"], Fault.REVOKED)):
        with pytest.raises(TokenError) as caught:
            check_claims(CLAIMS, now, revoked)
        assert caught.value.fault is fault


def test_keys_of_a_set_are_found_by_their_number() -> None:
    verifier = Verifier(read_keys(jwks(kid="7"), ["EdDSA"]))
    token = issue(CLAIMS, attrs.evolve(SIGNERS["EdDSA"], key_id="7"), audience=None, now=NOW)
    assert verifier.verify(token, NOW) == CLAIMS
    with pytest.raises(TokenError) as caught:
        verifier.verify(issue(CLAIMS, SIGNERS["EdDSA"], audience=None, now=NOW), NOW)
    assert caught.value.fault is Fault.UNKNOWN_KEY


@pytest.mark.parametrize("signed_by", [*ALGORITHMS, "none"])
@pytest.mark.parametrize("verified_by", ALGORITHMS)
def test_no_other_algorithm_will_do(signed_by: str, verified_by: str) -> None:
    if signed_by == verified_by:
        return
    if signed_by == "none":
        token = jwt.encode({"sub": "alice", "exp": NOW + 600, "aud": "us"}, "", algorithm="none")
    else:
        token = issue(CLAIMS, SIGNERS[signed_by], audience="us", now=NOW)
    with pytest.raises(TokenError) as caught:
        VERIFIERS[verified_by].verify(token, NOW)
    assert caught.value.fault is Fault.FORGED


def test_a_public_key_is_no_secret() -> None:
    """The oldest trick: HS256 with what everybody may know."""
    header = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps({"sub": "alice", "exp": NOW + 600, "aud": "us"}).encode())
    signed = header + b"." + body.rstrip(b"=")
    mac = hmac.digest(pem(RSA, public=True).encode(), signed, "sha256")
    signature = base64.urlsafe_b64encode(mac).rstrip(b"=")
    with pytest.raises(TokenError) as caught:
        VERIFIERS["RS256"].verify((signed + b"." + signature).decode(), NOW)
    assert caught.value.fault is Fault.FORGED


def test_somebody_else_s_key_is_forgery() -> None:
    other = Key("EdDSA", Ed25519PrivateKey.generate())
    with pytest.raises(TokenError) as caught:
        VERIFIERS["EdDSA"].verify(issue(CLAIMS, other, audience="us", now=NOW), NOW)
    assert caught.value.fault is Fault.FORGED


@pytest.mark.parametrize("audience", ["them", None])
def test_the_audience_must_be_ours(audience: str | None) -> None:
    token = issue(CLAIMS, SIGNERS["EdDSA"], audience=audience, now=NOW)
    with pytest.raises(TokenError, match="for another audience") as caught:
        VERIFIERS["EdDSA"].verify(token, NOW)
    assert caught.value.fault is Fault.AUDIENCE


def test_a_token_ends() -> None:
    token = issue(CLAIMS, SIGNERS["EdDSA"], audience="us", now=NOW)
    VERIFIERS["EdDSA"].verify(token, CLAIMS.expires + LEEWAY - 1)
    with pytest.raises(TokenError, match="the token is expired"):
        VERIFIERS["EdDSA"].verify(token, CLAIMS.expires + LEEWAY)


def test_a_token_may_begin_later() -> None:
    values = {"sub": "alice", "exp": NOW + 600, "nbf": NOW + 100}
    token = jwt.encode(values, ED25519, algorithm="EdDSA")
    verifier = attrs.evolve(VERIFIERS["EdDSA"], audience=None)
    verifier.verify(token, NOW + 100 - LEEWAY)
    with pytest.raises(TokenError, match="not valid yet"):
        verifier.verify(token, NOW)


def test_a_token_can_be_revoked_by_its_name_or_its_hash() -> None:
    token = issue(CLAIMS, SIGNERS["EdDSA"], audience="us", now=NOW)
    with pytest.raises(TokenError, match="revoked"):
        VERIFIERS["EdDSA"].verify(token, NOW, {"id-1"})
    nameless = jwt.encode({"sub": "alice", "exp": NOW + 600, "aud": "us"}, ED25519, algorithm="EdDSA")
    token_id = VERIFIERS["EdDSA"].verify(nameless, NOW).token_id
    with pytest.raises(TokenError, match="revoked"):
        VERIFIERS["EdDSA"].verify(nameless, NOW, {token_id})


@pytest.mark.parametrize(
    "values",
    [
        {"sub": "alice"},
        {"exp": NOW + 600},
        {"sub": "", "exp": NOW + 600},
        {"sub": "a" * 129, "exp": NOW + 600},
        {"sub": "alice\nbob", "exp": NOW + 600},
        {"sub": "alice", "exp": "tomorrow"},
        {"sub": "alice", "exp": NOW + 600, "tier": 5},
        {"sub": "alice", "exp": NOW + 600, "scope": ["client"]},
    ],
)
def test_what_says_too_little_is_malformed(values: dict[str, object]) -> None:
    token = jwt.encode(values, ED25519, algorithm="EdDSA")
    with pytest.raises(TokenError) as caught:
        attrs.evolve(VERIFIERS["EdDSA"], audience=None).verify(token, NOW)
    assert caught.value.fault is Fault.MALFORMED


@given(st.text(max_size=200))
def test_nothing_else_is_a_token(text: str) -> None:
    with pytest.raises(TokenError):
        VERIFIERS["EdDSA"].verify(text, NOW)


def test_a_token_without_end_is_not_looked_at() -> None:
    with pytest.raises(TokenError, match="malformed"):
        VERIFIERS["EdDSA"].verify("x" * (MAX_TOKEN + 1), NOW)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("short", "5 bytes can be guessed"),
        ("{", "no JWKS"),
        ('{"keys": 5}', "no JWKS"),
        ('{"keys": [1]}', "no JWKS"),
        ('{"keys": []}', "no key for EdDSA, RS256, HS256"),
        (jwks(use="enc"), "no key for"),
        (pem(new_rsa_key(65537, 1024)), "1024 bits is weak"),
        (pem(new_ec_key(SECP256R1())), "no JWKS"),
        ("-----BEGIN PUBLIC KEY-----", "no JWKS"),
    ],
)
def test_keys_that_will_not_do(text: str, words: str) -> None:
    with pytest.raises(TokenKeyError, match=words) as caught:
        read_keys(text, ALGORITHMS)
    assert "BEGIN" not in str(caught.value)


def test_a_key_of_another_algorithm_is_passed_over() -> None:
    with pytest.raises(TokenKeyError, match="no key for RS256"):
        read_keys(pem(ED25519), ["RS256"])


def test_keys_do_not_show() -> None:
    assert SECRET not in repr(SIGNERS["HS256"])
    assert SECRET not in repr(VERIFIERS["HS256"])


def test_a_public_key_signs_nothing() -> None:
    with pytest.raises(TokenKeyError, match="private one"):
        issue(CLAIMS, VERIFIERS["EdDSA"].keys[""], audience=None, now=NOW)


def test_who_has_a_token_sees_when_it_expires() -> None:
    assert expiry_of(jwt.encode({"exp": 1234}, "s" * 32, algorithm="HS256")) == 1234.0
    assert expiry_of(jwt.encode({"sub": "x"}, "s" * 32, algorithm="HS256")) is None
    assert expiry_of("nonsense") is None


def test_a_revoked_token_has_no_other_spelling() -> None:
    values = {"sub": "alice", "exp": int(NOW) + 600, "aud": "us"}
    token = jwt.encode(values, SECRET, algorithm="HS256")
    verifier = VERIFIERS["HS256"]
    revoked = [verifier.verify(token, NOW).token_id]
    head, _, signature = token.rpartition(".")
    # 32 bytes leave two bits of the last character that mean nothing.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = alphabet[alphabet.index(signature[-1]) + 1]
    for spelling in (f"{token}=", f"{token}==", f"{head}.{signature[:-1]}{other}", f"{head}.*{signature}"):
        with pytest.raises(TokenError) as caught:
            verifier.verify(spelling, NOW, revoked)
        assert caught.value.fault is Fault.MALFORMED


@pytest.mark.parametrize("claim", ["exp", "nbf"])
@pytest.mark.parametrize("number", [10**400, -(10**400), math.nan, math.inf, -math.inf], ids="abcde")
def test_a_time_is_a_finite_number(claim: str, number: float) -> None:
    values: dict[str, object] = {"sub": "alice", "exp": NOW + 600, "aud": "us", claim: number}
    token = signed(values)
    with pytest.raises(TokenError):
        VERIFIERS["HS256"].verify(token, NOW)
    if claim == "exp":
        assert expiry_of(token) is None


def signed(values: dict[str, object]) -> str:
    """Return a token that says *values*, whatever they are."""
    parts = [{"alg": "HS256", "typ": "JWT"}, values]
    text = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    mac = hmac.digest(SECRET.encode(), text, "sha256")
    return (text + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()

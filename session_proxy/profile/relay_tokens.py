"""Keys that sign tokens, and tokens: what an operator issues, or a test."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as new_rsa_key
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from session_proxy.errors import Problem, ProfileError
from session_proxy.profile.documents import read_text
from session_proxy.profile.relay_keys import read_jwt_keys
from session_proxy.profile.relay_model import Algorithm
from tunnel_relay.protocol.tokens import ALGORITHMS, SHORTEST_SECRET, Key, TokenKeyError

NEW_KEY = 'make one with "sproxy relay-token --new-key FILE"'

# For years to come (NIST SP 800-57 gives 2048 bits until 2030), and still signed with in milliseconds.
RSA_BITS = 3072

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

# Whoever writes more has mistaken the unit; and such a token is for ever.
LONGEST = 3660 * 86400

# The members that a key's thumbprint is made of (RFC 7638, section 3.2; RFC 8037, section 2).
THUMBPRINT = {"OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}


@attrs.frozen
class NewKey:
    """A fresh key.

    Attributes:
      private: What signs, as its file holds it.
      public: What verifies, as a JWKS; None where that is the same secret.

    """

    private: str = attrs.field(repr=False)
    public: str | None


def new_key(algorithm: Algorithm, randomness: Callable[[int], bytes]) -> NewKey:
    """Return a fresh key for *algorithm*; that of `RS256` takes a second."""
    if algorithm == "HS256":
        return NewKey(_encode(randomness(SHORTEST_SECRET)) + "\n", None)
    if algorithm == "EdDSA":
        material = Ed25519PrivateKey.from_private_bytes(randomness(32))
        private = OKPAlgorithm.to_jwk(material, as_dict=True)
        public = OKPAlgorithm.to_jwk(material.public_key(), as_dict=True)
    else:
        rsa = new_rsa_key(65537, RSA_BITS)
        private = RSAAlgorithm.to_jwk(rsa, as_dict=True)
        public = RSAAlgorithm.to_jwk(rsa.public_key(), as_dict=True)
    named = {"use": "sig", "alg": algorithm, "kid": _thumbprint(public)}
    return NewKey(
        _json({**_plain(private), **named}),
        _json({"keys": [{**_plain(public), **named}]}),
    )


def read_signing_key(path: Path, key_id: str | None) -> Key:
    """Return the key in the file at *path*; *key_id* chooses one of several, or names one that has no `kid`.

    Raises:
      ProfileError: there is none that signs.

    """
    try:
        keys = read_jwt_keys(read_text(path, "signing.json"), ALGORITHMS)
    except TokenKeyError as exc:
        raise ProfileError(path, [Problem("", str(exc), NEW_KEY)]) from None
    key = _chosen(path, keys, key_id)
    if not isinstance(key.material, bytes | Ed25519PrivateKey | RSAPrivateKey):
        raise ProfileError(
            path, [Problem("", "is a public key, which signs nothing", "name the private one")]
        )
    return key


def public_keys(path: Path) -> str:
    """Return the JWKS that verifies what the keys in the file at *path* sign.

    Raises:
      ProfileError: there are none that have a public half.

    """
    try:
        keys = read_jwt_keys(read_text(path, "signing.json"), ALGORITHMS)
    except TokenKeyError as exc:
        raise ProfileError(path, [Problem("", str(exc), NEW_KEY)]) from None
    members = [_public_members(key) for key in keys.values() if not isinstance(key.verifying, bytes)]
    if not members:
        fix = "give the relay the same file"
        raise ProfileError(path, [Problem("", "is the secret of HS256, which verifies as well", fix)])
    return _json({"keys": members})


def _public_members(key: Key) -> dict[str, object]:
    if isinstance(key.verifying, RSAPublicKey):
        members = RSAAlgorithm.to_jwk(key.verifying, as_dict=True)
    else:
        assert isinstance(key.verifying, Ed25519PublicKey)
        members = OKPAlgorithm.to_jwk(key.verifying, as_dict=True)
    named = {"use": "sig", "alg": key.algorithm, **({"kid": key.key_id} if key.key_id else {})}
    return {**_plain(members), **named}


def _chosen(path: Path, keys: Mapping[str, Key], key_id: str | None) -> Key:
    named = ", ".join(repr(kid) for kid in sorted(keys))
    if key_id is None:
        if len(keys) > 1:
            raise ProfileError(path, [Problem("", "holds several keys", f"choose one with --kid: {named}")])
        return next(iter(keys.values()))
    if key_id in keys:
        return keys[key_id]
    if list(keys) == [""]:
        return attrs.evolve(keys[""], key_id=key_id)
    what = f"has no key {key_id!r}"
    raise ProfileError(path, [Problem("", what, f"write --kid with one of {named}, or leave it out")])


def read_duration(text: str) -> int:
    """Return the seconds that *text* says, such as ``30d``; raises `ValueError`, with what to write."""
    found = re.fullmatch(r"([0-9]{1,12})([smhdw])", text.strip(), re.ASCII)
    if found is None or not int(found[1]):
        raise ValueError(f"{text!r} is no time; write a number with s, m, h, d or w, such as 30d")
    seconds = int(found[1]) * UNITS[found[2]]
    if seconds > LONGEST:
        raise ValueError(f"{text!r} is longer than ten years; write less")
    return seconds


def _thumbprint(public: Mapping[str, object]) -> str:
    members = {name: public[name] for name in THUMBPRINT[str(public["kty"])]}
    return _encode(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())


def _plain(members: Mapping[str, object]) -> dict[str, object]:
    # What a key may be used for is said by `use`.
    return {name: value for name, value in members.items() if name != "key_ops"}


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=2) + "\n"

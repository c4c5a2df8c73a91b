"""Who somebody is, by a JSON Web Token (RFC 7519) that a key of ours has signed.

Pure: keys, tokens and the time come as arguments. `sub` is the user, `exp` the end, `tier` and `scope` what the user
may do; `aud` must be ours where we have one, and `jti`, or the token's own hash, is what a revocation list names.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence

import attrs
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.exceptions import InvalidAudienceError, InvalidSignatureError, PyJWTError

from tunnel_relay.errors import RelayError

# What a relay may accept. `none` is not among them, and no key is ever used with an algorithm of another family.
ALGORITHMS = ("EdDSA", "RS256", "HS256")

# Seconds by which clocks may differ.
LEEWAY = 30

# Longer tokens than this are not looked at.
MAX_TOKEN = 8192
MAX_USER = 128

# Shorter secrets can be guessed (RFC 7518, section 3.2), and shorter RSA keys factored.
SHORTEST_SECRET = 32
SHORTEST_RSA = 2048


class Fault(enum.Enum):
    """What is wrong with a token."""

    MALFORMED = "malformed"
    FORGED = "forged"
    UNKNOWN_KEY = "signed with a key that the relay does not know"
    AUDIENCE = "for another audience"
    EXPIRED = "expired"
    NOT_YET = "not valid yet"
    REVOKED = "revoked"


class TokenError(RelayError):
    """A token is not accepted; *fault* says why. Nothing of the token is in the message."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(f"the token is {fault.value}")


class TokenKeyError(RelayError):
    """Keys cannot be used; the message says why, and nothing of them."""


class Scope(enum.Enum):
    """What a token may be used for."""

    CLIENT = "client"
    AGENT = "agent"


@attrs.frozen
class Claims:
    """What a token says, and has been verified.

    Attributes:
      user: Whose it is.
      expires: Until when it holds, in seconds of Unix time.
      tier: Which limits and features the user has.
      scopes: What it may be used for.
      token_id: What a revocation list calls it.

    """

    user: str
    expires: float
    tier: str
    scopes: frozenset[Scope]
    token_id: str


KeyMaterial = bytes | Ed25519PublicKey | Ed25519PrivateKey | RSAPublicKey | RSAPrivateKey


@attrs.frozen
class Key:
    """A key, and the one algorithm that it is used with.

    Attributes:
      algorithm: Of `ALGORITHMS`.
      material: The key itself.
      key_id: Its `kid`; empty where it has none.

    """

    algorithm: str
    material: KeyMaterial = attrs.field(repr=False)
    key_id: str = ""

    @property
    def verifying(self) -> bytes | Ed25519PublicKey | RSAPublicKey:
        """What verifies signatures: of a private key, the public one."""
        if isinstance(self.material, Ed25519PrivateKey | RSAPrivateKey):
            return self.material.public_key()
        return self.material


@attrs.frozen
class Verifier:
    """Verifies tokens.

    Attributes:
      keys: By `kid`.
      audience: Who a token must be for; None where it does not matter.

    """

    keys: Mapping[str, Key]
    audience: str | None = None

    def verify(self, token: str, now: float, revoked: Collection[str] = ()) -> Claims:
        """Return what *token* says; *revoked* names tokens by `Claims.token_id`.

        Raises:
          TokenError: it is not to be believed.

        """
        if len(token) > MAX_TOKEN:
            raise TokenError(Fault.MALFORMED)
        try:
            _check_canonical(token)
            header = jwt.get_unverified_header(token)
        except (PyJWTError, ValueError, RecursionError) as exc:
            raise TokenError(Fault.MALFORMED) from exc
        key = self.keys.get(str(header.get("kid", "")))
        if key is None:
            raise TokenError(Fault.UNKNOWN_KEY)
        if header.get("alg") != key.algorithm:
            raise TokenError(Fault.FORGED)
        try:
            values = jwt.decode(
                token,
                key.verifying,
                [key.algorithm],
                audience=self.audience,
                # The time is judged below, by the caller's clock.
                options={
                    "require": ["exp", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": self.audience is not None,
                },
            )
        except InvalidSignatureError as exc:
            raise TokenError(Fault.FORGED) from exc
        except InvalidAudienceError as exc:
            raise TokenError(Fault.AUDIENCE) from exc
        except (PyJWTError, ValueError, RecursionError) as exc:
            # Without an audience it is for nobody.
            lacks = getattr(exc, "claim", None)
            raise TokenError(Fault.AUDIENCE if lacks == "aud" else Fault.MALFORMED) from exc
        claims = _claims(values, token)
        not_before = _finite(values.get("nbf", 0))
        if not_before is None or not_before > now + LEEWAY:
            raise TokenError(Fault.NOT_YET)
        check_claims(claims, now, revoked)
        return claims


def check_claims(claims: Claims, now: float, revoked: Collection[str]) -> None:
    """See to it that *claims*, verified before, still hold; *revoked* is as for `Verifier.verify`.

    Raises:
      TokenError: they do not.

    """
    if claims.expires + LEEWAY <= now:
        raise TokenError(Fault.EXPIRED)
    if claims.token_id in revoked:
        raise TokenError(Fault.REVOKED)


def read_keys(text: str, algorithms: Sequence[str]) -> dict[str, Key]:
    """Return the keys of a JWKS (RFC 7517), a PEM key, or a secret, by `kid`, that go with *algorithms*.

    Raises:
      TokenKeyError: there are none.

    """
    try:
        found = _read_set(text) if text.lstrip().startswith("{") else [_read_single(text)]
    except (
        PyJWTError,
        UnsupportedAlgorithm,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as exc:
        raise TokenKeyError("this is no JWKS, PEM key or secret") from exc
    for key in found:
        _check_strength(key)
    keys = {key.key_id: key for key in found if key.algorithm in algorithms}
    if not keys:
        raise TokenKeyError(f"there is no key for {', '.join(algorithms)} among them")
    return keys


def issue(claims: Claims, key: Key, *, audience: str | None, now: float) -> str:
    """Return a token that says *claims*, signed by *key*, a private one or a secret.

    Raises:
      TokenKeyError: the key is a public one.

    """
    values: dict[str, object] = {
        "sub": claims.user,
        "exp": int(claims.expires),
        "iat": int(now),
        "tier": claims.tier,
        "scope": " ".join(sorted(scope.value for scope in claims.scopes)),
        "jti": claims.token_id,
    }
    if audience is not None:
        values["aud"] = audience
    if isinstance(key.material, Ed25519PublicKey | RSAPublicKey):
        raise TokenKeyError("a public key signs nothing: name the private one")
    return jwt.encode(
        values, key.material, algorithm=key.algorithm, headers={"kid": key.key_id} if key.key_id else None
    )


def expiry_of(token: str) -> float | None:
    """Return when *token* says that it expires, in seconds of Unix time; None where it does not say.

    For whoever has been given it and cannot verify it.
    """
    try:
        values = jwt.decode(token, options={"verify_signature": False})
    except (PyJWTError, ValueError, RecursionError):
        return None
    return _finite(values.get("exp"))


def _check_canonical(token: str) -> None:
    # Padding, bits beyond the end and foreign characters are passed over by who decodes it: it would be the same
    # token under another hash.
    for part in token.encode("ascii").split(b"."):
        decoded = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
        if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part:
            raise ValueError("not the base64url of anything")


def _finite(value: object) -> float | None:
    """Return *value* as a number of seconds; None where it is none."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _claims(values: Mapping[str, object], token: str) -> Claims:
    user, expires, tier = values.get("sub"), _finite(values.get("exp")), values.get("tier", "")
    scope, token_id = values.get("scope", ""), values.get("jti")
    if (
        not isinstance(user, str)
        or not 0 < len(user) <= MAX_USER
        or not user.isprintable()
        or expires is None
        or not isinstance(tier, str)
        or not isinstance(scope, str)
    ):
        raise TokenError(Fault.MALFORMED)
    known = {scope.value: scope for scope in Scope}
    return Claims(
        user=user,
        expires=expires,
        tier=tier,
        scopes=frozenset(known[word] for word in scope.split() if word in known),
        token_id=token_id if isinstance(token_id, str) else hashlib.sha256(token.encode()).hexdigest(),
    )


def _read_set(text: str) -> list[Key]:
    values = json.loads(text)
    listed = values.get("keys", [values])
    found: list[Key] = []
    for value in listed:
        key = jwt.PyJWK(value)
        if key.algorithm_name in ALGORITHMS and value.get("use", "sig") == "sig":
            found.append(Key(key.algorithm_name, key.key, str(value.get("kid", ""))))
    return found


def _read_single(text: str) -> Key:
    data = text.strip().encode()
    if not data.startswith(b"-----BEGIN"):
        return Key("HS256", data)
    material = load_pem_private_key(data, None) if b"PRIVATE" in data else load_pem_public_key(data)
    if isinstance(material, Ed25519PrivateKey | Ed25519PublicKey):
        return Key("EdDSA", material)
    if isinstance(material, RSAPrivateKey | RSAPublicKey):
        return Key("RS256", material)
    raise ValueError("neither Ed25519 nor RSA")


def _check_strength(key: Key) -> None:
    if isinstance(key.material, bytes) and len(key.material) < SHORTEST_SECRET:
        raise TokenKeyError(
            f"a secret of {len(key.material)} bytes can be guessed: {SHORTEST_SECRET} are the least"
        )
    if isinstance(key.material, RSAPrivateKey | RSAPublicKey) and key.material.key_size < SHORTEST_RSA:
        raise TokenKeyError(
            f"an RSA key of {key.material.key_size} bits is weak: {SHORTEST_RSA} are the least"
        )

"""Noise IKpsk2 as WireGuard speaks it (paper, section 5.4), for one pair of static keys.

Only keys, hashes and ciphertexts: header values, indices and MACs come in elsewhere. Whatever a stranger sends,
nothing here raises but `NoiseError`.

The names are the paper's: the *chain key* gathers the shared secrets, the *hash* everything sent so far.
"""

from __future__ import annotations

import enum
import hashlib

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from awg_obfs.errors import AwgError

KEY_LENGTH = 32
NO_PRESHARED_KEY = bytes(KEY_LENGTH)

_CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
_IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_NONCE = bytes(12)


class NoiseError(AwgError):
    """A handshake message is not what the keys say it must be, or there can be no handshake with a key."""


class Role(enum.Enum):
    """Who began the handshake."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


class PrivateKey:
    """A Curve25519 private key that never shows itself."""

    __slots__ = ("_key", "public")

    def __init__(self, raw: bytes) -> None:
        """Take 32 bytes; they need not be clamped.

        Raises:
          ValueError: they are not 32 bytes.
        """
        self._key = X25519PrivateKey.from_private_bytes(raw)
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return "PrivateKey(<hidden>)"

    def shared_secret(self, public: bytes) -> bytes:
        """Return the Diffie-Hellman secret with *public*.

        Raises:
          NoiseError: *public* is a point of small order, with which there is no secret.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as exc:
            raise NoiseError("there is no secret with this public key") from exc


def _hash(*parts: bytes) -> bytes:
    return hashlib.blake2s(b"".join(parts)).digest()


# The two keys that HMAC makes of one (RFC 2104), as translations of bytes: twice as fast as the library, which looks
# up its hash by name each time.
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_HASH_BLOCK = 64


def _hmac(key: bytes, message: bytes) -> bytes:
    key = key.ljust(_HASH_BLOCK, b"\0")
    inner = hashlib.blake2s(key.translate(_INNER) + message).digest()
    return hashlib.blake2s(key.translate(_OUTER) + inner).digest()


def _kdf(count: int, key: bytes, material: bytes) -> list[bytes]:
    """Derive *count* keys of 32 bytes: HKDF with HMAC-BLAKE2s and no info."""
    secret = _hmac(key, material)
    outputs: list[bytes] = []
    previous = b""
    for number in range(1, count + 1):
        previous = _hmac(secret, previous + bytes([number]))
        outputs.append(previous)
    return outputs


def _seal(key: bytes, content: bytes, associated: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(_NONCE, content, associated)


def _open(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, associated)
    except InvalidTag as exc:
        raise NoiseError("authentication failed") from exc


_INITIAL_CHAIN_KEY = _hash(_CONSTRUCTION)
_INITIAL_HASH = _hash(_INITIAL_CHAIN_KEY, _IDENTIFIER)


class Stage(enum.Enum):
    """How far a handshake has come; both sides' stages in one list, as the reference has them."""

    NOTHING = enum.auto()
    INITIATION_CREATED = enum.auto()
    INITIATION_CONSUMED = enum.auto()
    RESPONSE_CREATED = enum.auto()
    RESPONSE_CONSUMED = enum.auto()


@attrs.frozen
class Received:
    """An initiation opened as far as the sender's static key; its peer must be found to go on."""

    remote_static: bytes
    ephemeral: bytes = attrs.field(repr=False)
    chain_key: bytes = attrs.field(repr=False)
    hash: bytes = attrs.field(repr=False)


def open_initiation(identity: PrivateKey, ephemeral: bytes, static: bytes) -> Received:
    """Learn from an initiation who sent it. Nothing proves yet that it is new.

    Raises:
      NoiseError: it is not meant for us, or was altered.
    """
    hash_ = _hash(_hash(_INITIAL_HASH, identity.public), ephemeral)
    (chain_key,) = _kdf(1, _INITIAL_CHAIN_KEY, ephemeral)
    chain_key, key = _kdf(2, chain_key, identity.shared_secret(ephemeral))
    remote_static = _open(key, static, hash_)
    return Received(remote_static, ephemeral, chain_key, _hash(hash_, static))


@attrs.define(eq=False)
class Handshake:
    """The handshake with one peer: at most one at a time, in either role."""

    identity: PrivateKey = attrs.field(repr=False)
    remote_static: bytes = attrs.field(repr=False)
    preshared_key: bytes = attrs.field(default=NO_PRESHARED_KEY, repr=False)
    stage: Stage = attrs.field(default=Stage.NOTHING, init=False)
    _static_static: bytes = attrs.field(init=False, repr=False)
    _chain_key: bytes = attrs.field(default=b"", init=False, repr=False)
    _hash: bytes = attrs.field(default=b"", init=False, repr=False)
    _ephemeral: PrivateKey | None = attrs.field(default=None, init=False, repr=False)
    _remote_ephemeral: bytes = attrs.field(default=b"", init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._static_static = self.identity.shared_secret(self.remote_static)

    def create_initiation(self, ephemeral: bytes, timestamp: bytes) -> tuple[bytes, bytes, bytes]:
        """Begin anew with a fresh *ephemeral* private key: returns its public one, and both sealed fields."""
        self._ephemeral = PrivateKey(ephemeral)
        public = self._ephemeral.public
        hash_ = _hash(_hash(_INITIAL_HASH, self.remote_static), public)
        (chain_key,) = _kdf(1, _INITIAL_CHAIN_KEY, public)
        chain_key, key = _kdf(2, chain_key, self._ephemeral.shared_secret(self.remote_static))
        static = _seal(key, self.identity.public, hash_)
        hash_ = _hash(hash_, static)
        chain_key, key = _kdf(2, chain_key, self._static_static)
        sealed_timestamp = _seal(key, timestamp, hash_)
        self._chain_key = chain_key
        self._hash = _hash(hash_, sealed_timestamp)
        self.stage = Stage.INITIATION_CREATED
        return public, static, sealed_timestamp

    def open_timestamp(self, received: Received, sealed: bytes) -> tuple[bytes, bytes]:
        """Return the timestamp of an initiation from this peer, and the chain key to go on with.

        Raises:
          NoiseError: the sender does not hold the static key that it claims.
        """
        chain_key, key = _kdf(2, received.chain_key, self._static_static)
        return _open(key, sealed, received.hash), chain_key

    def consume_initiation(self, received: Received, sealed_timestamp: bytes, chain_key: bytes) -> None:
        """Take an initiation whose timestamp was found good. What was under way is forgotten."""
        self._chain_key = chain_key
        self._hash = _hash(received.hash, sealed_timestamp)
        self._remote_ephemeral = received.ephemeral
        self._ephemeral = None
        self.stage = Stage.INITIATION_CONSUMED

    def create_response(self, ephemeral: bytes) -> tuple[bytes, bytes]:
        """Answer the initiation with a fresh *ephemeral* private key: its public one, and the sealed nothing."""
        assert self.stage is Stage.INITIATION_CONSUMED
        own = PrivateKey(ephemeral)
        hash_ = _hash(self._hash, own.public)
        (chain_key,) = _kdf(1, self._chain_key, own.public)
        (chain_key,) = _kdf(1, chain_key, own.shared_secret(self._remote_ephemeral))
        (chain_key,) = _kdf(1, chain_key, own.shared_secret(self.remote_static))
        chain_key, tau, key = _kdf(3, chain_key, self.preshared_key)
        hash_ = _hash(hash_, tau)
        empty = _seal(key, b"", hash_)
        self._chain_key = chain_key
        self._hash = _hash(hash_, empty)
        self.stage = Stage.RESPONSE_CREATED
        return own.public, empty

    def consume_response(self, remote_ephemeral: bytes, empty: bytes) -> None:
        """Take the answer to our initiation. A bad one changes nothing.

        Raises:
          NoiseError: it does not answer our initiation, or the preshared keys differ.
        """
        own = self._ephemeral
        if self.stage is not Stage.INITIATION_CREATED or own is None:
            raise NoiseError("no initiation of ours is open")
        hash_ = _hash(self._hash, remote_ephemeral)
        (chain_key,) = _kdf(1, self._chain_key, remote_ephemeral)
        (chain_key,) = _kdf(1, chain_key, own.shared_secret(remote_ephemeral))
        (chain_key,) = _kdf(1, chain_key, self.identity.shared_secret(remote_ephemeral))
        chain_key, tau, key = _kdf(3, chain_key, self.preshared_key)
        hash_ = _hash(hash_, tau)
        _open(key, empty, hash_)
        self._chain_key = chain_key
        self._hash = _hash(hash_, empty)
        self.stage = Stage.RESPONSE_CONSUMED

    def derive_keys(self) -> tuple[Role, bytes, bytes]:
        """End the handshake: our role, the key to send with and the key to receive with."""
        first, second = _kdf(2, self._chain_key, b"")
        role = Role.INITIATOR if self.stage is Stage.RESPONSE_CONSUMED else Role.RESPONDER
        self.forget()
        return (role, first, second) if role is Role.INITIATOR else (role, second, first)

    def forget(self) -> None:
        """Drop every secret of the handshake under way."""
        self._chain_key = self._hash = self._remote_ephemeral = b""
        self._ephemeral = None
        self.stage = Stage.NOTHING

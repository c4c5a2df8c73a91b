"""Keys as people handle them: 32 bytes, in base64, as ``awg genkey``, ``awg pubkey`` and ``awg genpsk`` print them."""

from __future__ import annotations

import base64
import binascii

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from awg_obfs.errors import KeyFormatError
from awg_obfs.protocol.randomness import Randomness

KEY_LENGTH = 32
_TEXT_LENGTH = 44

# Any would do: what has no secret with one private key has none with all.
_PROBE = bytes(KEY_LENGTH)


def clamp(key: bytes) -> bytes:
    """Return *key* as a private key of Curve25519: bits cleared and set as RFC 7748, section 5, asks."""
    return bytes((key[0] & 248, *key[1:31], key[31] & 127 | 64))


def new_private_key(random: Randomness) -> bytes:
    """Return a fresh private key."""
    return clamp(random(KEY_LENGTH))


def new_preshared_key(random: Randomness) -> bytes:
    """Return a fresh preshared key."""
    return random(KEY_LENGTH)


def public_key_of(private_key: bytes) -> bytes:
    """Return the public key that belongs to *private_key*."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def is_usable_public_key(key: bytes) -> bool:
    """Tell whether secrets can be shared with the holder of *key*.

    Not so with the points of small order, such as 32 zeros: their secret is zero whatever the private key (RFC 7748,
    section 6.1), and nobody can have one that belongs to them.
    """
    try:
        X25519PrivateKey.from_private_bytes(_PROBE).exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        return False
    return True


def key_to_text(key: bytes) -> str:
    """Return *key* in base64."""
    return base64.b64encode(key).decode("ascii")


def key_from_text(text: str) -> bytes:
    """Return the key that *text* is; blanks around it do not count.

    Raises:
      KeyFormatError: it is none. The message does not show it, for it may be a private one with a slip.

    """
    text = text.strip()
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_LENGTH or len(text) != _TEXT_LENGTH or key_to_text(key) != text:
        raise KeyFormatError(
            f"a key is {_TEXT_LENGTH} characters of base64, as awg genkey prints it; this has {len(text)} characters"
            if len(text) != _TEXT_LENGTH
            else "a key is 32 bytes in base64, as awg genkey prints it; this is something else"
        )
    return key

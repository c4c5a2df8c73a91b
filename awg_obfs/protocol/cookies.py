"""MAC1, MAC2 and cookies: what keeps a device from working for those who only flood it (paper, section 5.4.7).

MAC1 proves that the sender knows whom it talks to: the rest are not answered at all. A device under load answers
with a cookie, good for that address and two minutes, and does the expensive work only for those who return it.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from awg_obfs.protocol.address import Address, address_bytes
from awg_obfs.protocol.messages import MAC1_FROM_END, MAC_LENGTH, CookieReply
from awg_obfs.protocol.randomness import Randomness

# How long a cookie, and the secret that cookies are made with, may be used, in seconds.
COOKIE_LIFETIME = 120.0

SECRET_LENGTH = 32
NONCE_LENGTH = 24

_LABEL_MAC1 = b"mac1----"
_LABEL_COOKIE = b"cookie--"
_CHACHA_CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")
_WORDS = struct.Struct("<4I")


def _mac(key: bytes, message: bytes | bytearray) -> bytes:
    return hashlib.blake2s(message, key=key, digest_size=MAC_LENGTH).digest()


def _label_key(label: bytes, public: bytes) -> bytes:
    return hashlib.blake2s(label + public).digest()


def _xchacha(key: bytes, nonce: bytes) -> tuple[ChaCha20Poly1305, bytes]:
    """Return the cipher and the nonce that make ChaCha20-Poly1305 of XChaCha20-Poly1305.

    HChaCha20 is one block of ChaCha20 before its input is added to it; we subtract that again.
    """
    block = Cipher(ChaCha20(key, nonce[:16]), None).encryptor().update(bytes(64))
    first = [a - b for a, b in zip(_WORDS.unpack_from(block), _CHACHA_CONSTANTS, strict=True)]
    last = [a - b for a, b in zip(_WORDS.unpack_from(block, 48), _WORDS.unpack_from(nonce), strict=True)]
    subkey = struct.pack("<8I", *(word & 0xFFFFFFFF for word in first + last))
    return ChaCha20Poly1305(subkey), bytes(4) + nonce[16:]


class MacVerifier:
    """The receiving half: checks MACs made for our public key, and hands out cookies."""

    def __init__(self, public: bytes) -> None:
        self._mac1_key = _label_key(_LABEL_MAC1, public)
        self._cookie_key = _label_key(_LABEL_COOKIE, public)
        self._secret = b""
        self._secret_expires = -math.inf

    def mac1_fits(self, message: bytes) -> bool:
        """Tell whether the sender of *message* (without padding) knows our public key."""
        expected = _mac(self._mac1_key, message[:-MAC1_FROM_END])
        return hmac.compare_digest(expected, message[-MAC1_FROM_END:-MAC_LENGTH])

    def mac2_fits(self, message: bytes, source: Address, now: float) -> bool:
        """Tell whether *message* returns the cookie that we gave *source*."""
        if now > self._secret_expires:
            return False
        cookie = _mac(self._secret, address_bytes(source))
        return hmac.compare_digest(_mac(cookie, message[:-MAC_LENGTH]), message[-MAC_LENGTH:])

    def create_reply(self, message: bytes, source: Address, now: float, random: Randomness) -> CookieReply:
        """Make the cookie reply to a handshake *message* whose MAC1 fits."""
        if now > self._secret_expires:
            self._secret = random(SECRET_LENGTH)
            self._secret_expires = now + COOKIE_LIFETIME
        cookie = _mac(self._secret, address_bytes(source))
        nonce = random(NONCE_LENGTH)
        cipher, short_nonce = _xchacha(self._cookie_key, nonce)
        mac1 = message[-MAC1_FROM_END:-MAC_LENGTH]
        return CookieReply(
            int.from_bytes(message[4:8], "little"), nonce, cipher.encrypt(short_nonce, cookie, mac1)
        )


@attrs.define(eq=False, init=False)
class MacMaker:
    """The sending half, one for each peer: signs handshake messages, and returns the peer's cookies."""

    _mac1_key: bytes = attrs.field(repr=False)
    _cookie_key: bytes = attrs.field(repr=False)
    _last_mac1: bytes = attrs.field(repr=False)
    _cookie: bytes = attrs.field(repr=False)
    _cookie_expires: float

    def __init__(self, remote_public: bytes) -> None:
        self._mac1_key = _label_key(_LABEL_MAC1, remote_public)
        self._cookie_key = _label_key(_LABEL_COOKIE, remote_public)
        self._last_mac1 = b""
        self._cookie = b""
        self._cookie_expires = -math.inf

    def sign(self, message: bytearray, now: float) -> None:
        """Fill in MAC1, and MAC2 while the peer's cookie is good. *message* carries its header already."""
        mac1 = _mac(self._mac1_key, message[:-MAC1_FROM_END])
        message[-MAC1_FROM_END:-MAC_LENGTH] = mac1
        self._last_mac1 = mac1
        if now <= self._cookie_expires:
            message[-MAC_LENGTH:] = _mac(self._cookie, message[:-MAC_LENGTH])

    def consume_reply(self, reply: CookieReply, now: float) -> bool:
        """Keep the cookie of *reply*; tells whether it answers the last message that we signed."""
        if not self._last_mac1:
            return False
        cipher, short_nonce = _xchacha(self._cookie_key, reply.nonce)
        try:
            self._cookie = cipher.decrypt(short_nonce, reply.cookie, self._last_mac1)
        except InvalidTag:
            return False
        self._cookie_expires = now + COOKIE_LIFETIME
        return True

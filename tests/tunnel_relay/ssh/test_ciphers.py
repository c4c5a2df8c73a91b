from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from tunnel_relay.errors import SshDisconnectedError
from tunnel_relay.ssh.ciphers import (
    LENGTH,
    ClearPackets,
    EtmPackets,
    GcmPackets,
    Mac,
    MacPackets,
    PacketCipher,
)

KEY = bytes(range(32))
MAC = Mac(b"m" * 32, "sha256", 32)


def ctr() -> Cipher[CTR]:
    return Cipher(AES(KEY), CTR(bytes(16)))


KINDS: dict[str, Callable[[], tuple[PacketCipher, PacketCipher]]] = {
    "clear": lambda: (ClearPackets(), ClearPackets()),
    "gcm": lambda: (GcmPackets(AESGCM(KEY), bytes(12)), GcmPackets(AESGCM(KEY), bytes(12))),
    "etm": lambda: (EtmPackets(ctr().encryptor(), MAC), EtmPackets(ctr().decryptor(), MAC)),
    "mac": lambda: (MacPackets(ctr().encryptor(), MAC), MacPackets(ctr().decryptor(), MAC)),
}
ENCRYPTED = [name for name in KINDS if name != "clear"]


def packet(cipher: PacketCipher, payload: bytes) -> bytes:
    """Pad by hand, to be independent of the code under test."""
    used = 1 + len(payload) + (LENGTH if cipher.hides_length else 0)
    padding = cipher.block - used % cipher.block
    padding += cipher.block if padding < 4 else 0
    return (1 + len(payload) + padding).to_bytes(4, "big") + bytes([padding]) + payload + bytes(padding)


def seal(cipher: PacketCipher, sequence: int, plain: bytes) -> bytes:
    out = bytearray(len(plain) + cipher.tag)
    cipher.seal(sequence, memoryview(plain), len(plain), memoryview(out), 0)
    return bytes(out)


def unseal(cipher: PacketCipher, sequence: int, sealed: bytes) -> bytes:
    view = memoryview(sealed)
    length = cipher.length(view, 0)
    into = bytearray(length)
    cipher.open(sequence, view, 0, LENGTH + length + cipher.tag, memoryview(into))
    return bytes(into)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sealed_can_be_opened(kind: str) -> None:
    sealer, opener = KINDS[kind]()
    for sequence, payload in enumerate([b"\x05hello", b"x" * 1000, b"", b"y" * 33]):
        plain = packet(sealer, payload)
        sealed = seal(sealer, sequence, plain)
        assert len(sealed) == len(plain) + sealer.tag
        assert unseal(opener, sequence, sealed) == plain[LENGTH:]


@pytest.mark.parametrize("kind", ENCRYPTED)
def test_the_payload_is_not_to_be_seen(kind: str) -> None:
    sealer, _ = KINDS[kind]()
    assert b"secret" not in seal(sealer, 0, packet(sealer, b"secret secret secret"))


@pytest.mark.parametrize("kind", ENCRYPTED)
def test_a_changed_bit_anywhere_behind_the_length_is_noticed(kind: str) -> None:
    for position in (4, 10, 30, -1):
        sealer, opener = KINDS[kind]()
        sealed = bytearray(seal(sealer, 7, packet(sealer, b"x" * 40)))
        sealed[position] ^= 1
        if kind == "mac" and 0 <= position < 4:
            continue
        with pytest.raises(SshDisconnectedError, match="changed"):
            unseal(opener, 7, bytes(sealed))


@pytest.mark.parametrize("kind", ["etm", "mac"])
def test_a_mac_covers_the_sequence_number(kind: str) -> None:
    sealer, opener = KINDS[kind]()
    with pytest.raises(SshDisconnectedError):
        unseal(opener, 8, seal(sealer, 7, packet(sealer, b"x" * 40)))


def test_gcm_counts_its_nonces_and_wraps_round() -> None:
    """RFC 5647, section 7.1: the counter is of 64 bits, the four bytes before it never change."""
    sealer = GcmPackets(AESGCM(KEY), b"abcd" + b"\xff" * 8)
    plain = packet(sealer, b"payload")
    first, second = seal(sealer, 0, plain), seal(sealer, 1, plain)
    aead = AESGCM(KEY)
    assert aead.decrypt(b"abcd" + b"\xff" * 8, first[4:], first[:4]) == plain[4:]
    assert aead.decrypt(b"abcd" + bytes(8), second[4:], second[:4]) == plain[4:]


def test_keys_do_not_show() -> None:
    assert "mmmm" not in repr(MAC)
    assert "mmmm" not in repr(EtmPackets(ctr().encryptor(), MAC))

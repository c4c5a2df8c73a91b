from __future__ import annotations

import hmac
import random

import pytest

from awg_obfs.protocol import noise
from awg_obfs.protocol.noise import (
    KEY_LENGTH,
    NO_PRESHARED_KEY,
    Handshake,
    NoiseError,
    PrivateKey,
    Role,
    open_initiation,
)

rng = random.Random(5)
ALICE, BOB = PrivateKey(rng.randbytes(32)), PrivateKey(rng.randbytes(32))
STAMP = b"\x40" + bytes(11)
SMALL_ORDER = bytes(KEY_LENGTH)


def handshakes(
    alices_key: bytes = NO_PRESHARED_KEY, bobs_key: bytes = NO_PRESHARED_KEY
) -> tuple[Handshake, Handshake]:
    return Handshake(ALICE, BOB.public, alices_key), Handshake(BOB, ALICE.public, bobs_key)


def initiate(alice: Handshake, bob: Handshake) -> bytes:
    """Bring an initiation over, and return the timestamp that came out."""
    ephemeral, static, sealed = alice.create_initiation(rng.randbytes(32), STAMP)
    received = open_initiation(BOB, ephemeral, static)
    assert received.remote_static == ALICE.public
    timestamp, chain_key = bob.open_timestamp(received, sealed)
    bob.consume_initiation(received, sealed, chain_key)
    return timestamp


@pytest.mark.parametrize("preshared_key", [NO_PRESHARED_KEY, b"p" * 32])
def test_both_sides_come_to_the_same_keys(preshared_key: bytes) -> None:
    alice, bob = handshakes(preshared_key, preshared_key)

    assert initiate(alice, bob) == STAMP
    alice.consume_response(*bob.create_response(rng.randbytes(32)))
    role, sends, receives = alice.derive_keys()

    assert role is Role.INITIATOR
    assert bob.derive_keys() == (Role.RESPONDER, receives, sends)
    assert sends != receives


def test_other_preshared_keys_are_noticed_by_the_initiator() -> None:
    alice, bob = handshakes(b"a" * 32, b"b" * 32)
    initiate(alice, bob)

    with pytest.raises(NoiseError):
        alice.consume_response(*bob.create_response(rng.randbytes(32)))


def test_a_forged_response_leaves_the_handshake_open() -> None:
    alice, bob = handshakes()
    initiate(alice, bob)
    ephemeral, empty = bob.create_response(rng.randbytes(32))

    for forged in ((ephemeral, bytes(16)), (BOB.public, empty), (SMALL_ORDER, empty)):
        with pytest.raises(NoiseError):
            alice.consume_response(*forged)
    alice.consume_response(ephemeral, empty)

    assert alice.derive_keys()[1] == bob.derive_keys()[2]


def test_a_response_to_nothing_is_refused() -> None:
    alice, bob = handshakes()
    initiate(alice, bob)
    response = bob.create_response(rng.randbytes(32))

    with pytest.raises(NoiseError):
        Handshake(ALICE, BOB.public).consume_response(*response)


def test_an_initiation_for_somebody_else_cannot_be_opened() -> None:
    alice, _ = handshakes()
    ephemeral, static, _ = alice.create_initiation(rng.randbytes(32), STAMP)

    with pytest.raises(NoiseError):
        open_initiation(PrivateKey(rng.randbytes(32)), ephemeral, static)
    with pytest.raises(NoiseError):
        open_initiation(BOB, SMALL_ORDER, static)


def test_who_only_knows_a_public_key_cannot_pretend_to_own_it() -> None:
    """Mallory can seal Alice's public key for Bob, but not the timestamp: that needs Alice's private key."""
    _, bob = handshakes()
    mallory = Handshake(PrivateKey(rng.randbytes(32)), BOB.public)
    mallory.identity.public = ALICE.public
    ephemeral, static, sealed = mallory.create_initiation(rng.randbytes(32), STAMP)

    received = open_initiation(BOB, ephemeral, static)

    assert received.remote_static == ALICE.public
    with pytest.raises(NoiseError):
        bob.open_timestamp(received, sealed)


def test_there_is_no_handshake_with_a_key_of_small_order() -> None:
    with pytest.raises(NoiseError):
        Handshake(ALICE, SMALL_ORDER)


def test_keys_must_have_their_length() -> None:
    with pytest.raises(ValueError, match="32"):
        PrivateKey(b"short")


def test_our_hmac_is_the_library_s() -> None:
    for length in (0, 1, 32, 64, 65, 200):
        key, message = rng.randbytes(32), rng.randbytes(length)
        assert noise._hmac(key, message) == hmac.digest(key, message, "blake2s")


def test_secrets_are_not_shown() -> None:
    alice, bob = handshakes(b"p" * 32, b"p" * 32)
    initiate(alice, bob)

    for shown in (repr(ALICE), repr(alice), repr(bob), str(ALICE)):
        assert "pppp" not in shown
        assert ALICE.public.hex() not in shown
        assert repr(ALICE.public)[2:10] not in shown

from __future__ import annotations

import random

import pytest

from awg_obfs.protocol.cookies import COOKIE_LIFETIME, MacMaker, MacVerifier
from awg_obfs.protocol.messages import Initiation

rng = random.Random(7)
PUBLIC = rng.randbytes(32)
SOURCE = ("192.0.2.1", 40000)


def message(maker: MacMaker, now: float) -> bytes:
    unsigned = Initiation(5, rng.randbytes(32), rng.randbytes(48), rng.randbytes(28)).encode(1)
    maker.sign(unsigned, now)
    return bytes(unsigned)


def flipped(data: bytes, position: int) -> bytes:
    altered = bytearray(data)
    altered[position] ^= 1
    return bytes(altered)


def test_mac1_fits_for_whom_it_was_made_and_for_nothing_altered() -> None:
    signed = message(MacMaker(PUBLIC), 0.0)

    assert MacVerifier(PUBLIC).mac1_fits(signed)
    assert not MacVerifier(rng.randbytes(32)).mac1_fits(signed)
    for position in range(len(signed) - 16):
        assert not MacVerifier(PUBLIC).mac1_fits(flipped(signed, position))


def test_without_a_cookie_mac2_is_zero_and_does_not_fit() -> None:
    signed = message(MacMaker(PUBLIC), 0.0)

    assert signed[-16:] == bytes(16)
    assert not MacVerifier(PUBLIC).mac2_fits(signed, SOURCE, 0.0)


def test_a_returned_cookie_proves_an_address_and_a_port() -> None:
    maker, verifier = MacMaker(PUBLIC), MacVerifier(PUBLIC)
    reply = verifier.create_reply(message(maker, 0.0), SOURCE, 0.0, rng.randbytes)

    assert reply.receiver == 5
    assert maker.consume_reply(reply, 0.0)
    signed = message(maker, 1.0)

    assert verifier.mac2_fits(signed, SOURCE, 1.0)
    assert not verifier.mac2_fits(signed, ("192.0.2.1", 40001), 1.0)
    assert not verifier.mac2_fits(signed, ("192.0.2.9", 40000), 1.0)
    assert not verifier.mac2_fits(flipped(signed, 20), SOURCE, 1.0)


def test_cookies_and_what_they_are_made_with_last_two_minutes() -> None:
    maker, verifier = MacMaker(PUBLIC), MacVerifier(PUBLIC)
    first = verifier.create_reply(message(maker, 0.0), SOURCE, 0.0, rng.randbytes)
    maker.consume_reply(first, 0.0)
    late = message(maker, COOKIE_LIFETIME)

    assert verifier.mac2_fits(late, SOURCE, COOKIE_LIFETIME)
    assert not verifier.mac2_fits(late, SOURCE, COOKIE_LIFETIME + 1)
    assert message(maker, COOKIE_LIFETIME + 1)[-16:] == bytes(16)

    verifier.create_reply(message(maker, 200.0), SOURCE, COOKIE_LIFETIME + 1, rng.randbytes)
    assert not verifier.mac2_fits(late, SOURCE, COOKIE_LIFETIME + 1)


def test_only_the_answer_to_the_last_message_is_taken() -> None:
    maker, verifier = MacMaker(PUBLIC), MacVerifier(PUBLIC)
    old = verifier.create_reply(message(maker, 0.0), SOURCE, 0.0, rng.randbytes)
    new = message(maker, 5.0)

    assert not maker.consume_reply(old, 5.0)
    assert not MacMaker(PUBLIC).consume_reply(old, 5.0)
    assert maker.consume_reply(verifier.create_reply(new, SOURCE, 5.0, rng.randbytes), 5.0)


def test_xchacha_is_the_published_one() -> None:
    """The vector of draft-irtf-cfrg-xchacha, section 2.2.1, seen through a cipher that has it: libsodium."""
    bindings = pytest.importorskip("nacl.bindings")
    maker, verifier = MacMaker(PUBLIC), MacVerifier(PUBLIC)
    signed = message(maker, 0.0)
    reply = verifier.create_reply(signed, SOURCE, 0.0, rng.randbytes)
    key = verifier._cookie_key

    cookie: bytes = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
        reply.cookie, signed[-32:-16], reply.nonce, key
    )

    assert maker.consume_reply(reply, 0.0)
    assert maker._cookie == cookie


def test_secrets_are_not_shown() -> None:
    assert repr(MacMaker(PUBLIC)) == "MacMaker(_cookie_expires=-inf)"

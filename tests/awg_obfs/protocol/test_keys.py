from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.errors import KeyFormatError
from awg_obfs.protocol.keys import (
    clamp,
    is_usable_public_key,
    key_from_text,
    key_to_text,
    new_preshared_key,
    new_private_key,
    public_key_of,
)
from tests.support.awg import RecordedRandomness

KEYS = st.binary(min_size=32, max_size=32)


@given(key=KEYS)
def test_a_key_reads_as_it_is_written(key: bytes) -> None:
    assert key_from_text(key_to_text(key)) == key
    assert key_from_text(f"  {key_to_text(key)}\n") == key


@given(key=KEYS)
def test_clamping_is_done_once(key: bytes) -> None:
    clamped = clamp(key)

    assert clamped[0] & 7 == 0
    assert clamped[31] & 0xC0 == 0x40
    assert clamp(clamped) == clamped
    assert public_key_of(clamped) == public_key_of(key)


def test_keys_belong_together_as_the_reference_has_them() -> None:
    """The first device of the recorded sessions."""
    private = clamp(b"\x11" * 32)

    assert private.hex() == "10" + "11" * 30 + "51"
    assert public_key_of(private).hex() == "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13"


# Points of small order, as cr.yp.to/ecdh.html lists them.
SMALL_ORDER = [
    number.to_bytes(32, "little")
    for number in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        2**255 - 20,
        2**255 - 19,
        2**255 - 18,
        # The top bit of a key does not count (RFC 7748, section 5).
        2**255,
        2**256 - 19,
    )
]


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_a_point_of_small_order_is_no_usable_key(key: bytes) -> None:
    assert not is_usable_public_key(key)


@given(key=KEYS)
def test_what_belongs_to_a_private_key_is_usable(key: bytes) -> None:
    assert is_usable_public_key(public_key_of(key))


def test_new_keys_are_drawn() -> None:
    random = RecordedRandomness(seed="keys")
    private, preshared = new_private_key(random), new_preshared_key(random)

    assert private == clamp(bytes.fromhex(random.reads[0]))
    assert preshared.hex() == random.reads[1]


@pytest.mark.parametrize(
    "text", ["", "short", "A" * 44, "A" * 42 + "==", "A" * 43 + "\u00e9", "A" * 42 + "B=", "!" * 43 + "="]
)
def test_what_is_no_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(KeyFormatError) as caught:
        key_from_text(text)
    assert text not in str(caught.value) or not text
    assert "\n" not in str(caught.value)

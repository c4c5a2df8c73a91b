from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.errors import NumberError, NumberFault
from awg_obfs.protocol.decimals import MAX_INT64, MAX_UINT32, MAX_UINT64, parse_signed, parse_unsigned


@given(number=st.integers(0, MAX_UINT64), zeros=st.integers(0, 30))
def test_digits_are_a_number_whatever_zeros_lead_them(number: int, zeros: int) -> None:
    assert parse_unsigned("0" * zeros + str(number)) == number


@given(number=st.integers(-(2**63), MAX_INT64))
def test_signed_numbers_have_64_bits(number: int) -> None:
    assert parse_signed(str(number)) == number


@pytest.mark.parametrize("text", ["+5", "005", "+005"])
def test_a_plus_and_zeros_are_fine(text: str) -> None:
    assert parse_signed(text) == 5


@pytest.mark.parametrize(
    "text", ["", "-", "+", "--5", "+-5", " 5", "5 ", "5_0", "0x5", "5.0", "5e1", "\u0665", "five", "-+5"]
)
def test_nothing_but_digits_is_a_number(text: str) -> None:
    with pytest.raises(NumberError) as caught:
        parse_signed(text)
    assert caught.value.fault is NumberFault.SYNTAX


@pytest.mark.parametrize("text", ["+5", "-5", "-0"])
def test_unsigned_numbers_have_no_sign(text: str) -> None:
    with pytest.raises(NumberError) as caught:
        parse_unsigned(text)
    assert caught.value.fault is NumberFault.SYNTAX


@pytest.mark.parametrize(
    "text", [str(2**63), str(-(2**63) - 1), "9" * 30, "-" + "9" * 5000, "99999999999999999999x"]
)
def test_what_does_not_fit_is_out_of_range(text: str) -> None:
    """Go reads digit by digit, so a number that has overflowed is too large whatever follows."""
    with pytest.raises(NumberError) as caught:
        parse_signed(text)
    assert caught.value.fault is NumberFault.RANGE


def test_what_follows_a_number_that_fits_is_seen() -> None:
    with pytest.raises(NumberError) as caught:
        parse_unsigned(f"{MAX_UINT32}x", MAX_UINT32)
    assert caught.value.fault is NumberFault.SYNTAX
    with pytest.raises(NumberError) as caught:
        parse_unsigned(f"{MAX_UINT32 + 1}x", MAX_UINT32)
    assert caught.value.fault is NumberFault.RANGE


@given(text=st.text())
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        number = parse_signed(text)
    except NumberError:
        return
    assert int(text) == number

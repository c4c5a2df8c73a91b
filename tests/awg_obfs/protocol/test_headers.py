from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.errors import HeaderFault, HeaderRangeError
from awg_obfs.protocol.decimals import MAX_UINT32
from awg_obfs.protocol.headers import HeaderRange, first_overlap
from tests.support.awg import RecordedRandomness

NUMBERS = st.integers(0, MAX_UINT32)
RANGES = st.tuples(NUMBERS, NUMBERS).map(lambda pair: HeaderRange(min(pair), max(pair)))
SMALL = st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda pair: HeaderRange(pair[0], sum(pair)))


@given(header=RANGES)
def test_a_range_reads_as_it_prints(header: HeaderRange) -> None:
    assert HeaderRange.parse(str(header)) == header


@given(header=RANGES, seed=st.text())
def test_what_a_range_generates_lies_in_it(header: HeaderRange, seed: str) -> None:
    if not header.covers_everything:
        assert all(number in header for number in header.generate_many(3, RecordedRandomness(seed=seed)))


@given(header=RANGES, number=NUMBERS)
def test_both_ends_belong_to_a_range(header: HeaderRange, number: int) -> None:
    assert header.start in header
    assert header.end in header
    assert (number in header) == (header.start <= number <= header.end)


def test_a_single_number_draws_nothing() -> None:
    assert HeaderRange(7, 7).generate(RecordedRandomness()) == 7
    assert HeaderRange(7, 7).generate_many(2, RecordedRandomness()) == [7, 7]


def test_nothing_can_be_drawn_from_all_numbers_there_are() -> None:
    header = HeaderRange.parse("0-4294967295")

    assert header.covers_everything
    with pytest.raises(ValueError, match="no number below 0"):
        header.generate(RecordedRandomness(seed="x"))


@pytest.mark.parametrize(("start", "end"), [(2, 1), (-1, 1), (1, MAX_UINT32 + 1)])
def test_a_wrong_range_cannot_be_made(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="32-bit"):
        HeaderRange(start, end)


@pytest.mark.parametrize(
    ("text", "fault", "message"),
    [
        ("1-2-3", HeaderFault.TOO_MANY_DASHES, '"1-2-3" has more than one dash'),
        ("5-", HeaderFault.NUMBER_SYNTAX, '"5-" is neither a number nor a range of numbers'),
        ("4294967296", HeaderFault.NUMBER_RANGE, '"4294967296" goes above 4294967295'),
        ("9-8", HeaderFault.END_BEFORE_START, '"9-8" ends before it starts'),
    ],
)
def test_a_wrong_text_says_what_is_wrong(text: str, fault: HeaderFault, message: str) -> None:
    with pytest.raises(HeaderRangeError) as caught:
        HeaderRange.parse(text)
    assert caught.value.fault is fault
    assert str(caught.value) == message


@given(text=st.text(alphabet="0123456789-+ x_\u0665", max_size=14))
def test_any_text_is_a_range_or_refused(text: str) -> None:
    try:
        header = HeaderRange.parse(text)
    except HeaderRangeError:
        return
    assert set(text) <= set("0123456789-")
    assert HeaderRange.parse(str(header)) == header


@given(headers=st.lists(SMALL, max_size=4))
def test_overlaps_are_found_where_a_number_is_shared(headers: list[HeaderRange]) -> None:
    sets = [set(range(header.start, header.end + 1)) for header in headers]
    shared = [(i, j) for i, j in itertools.combinations(range(len(sets)), 2) if sets[i] & sets[j]]

    assert first_overlap(headers) == (shared[0] if shared else None)

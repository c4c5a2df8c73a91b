from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.protocol.randomness import PooledRandomness, uniform, uniform_many
from tests.support.awg import RecordedRandomness

WIDTHS = st.integers(1, 2**33) | st.sampled_from((1, 2, 255, 256, 257, 2**16, 2**16 + 1, 2**32 - 1, 2**32))


@given(width=WIDTHS, seed=st.text())
def test_a_number_is_below_the_width(width: int, seed: str) -> None:
    assert 0 <= uniform(width, RecordedRandomness(seed=seed)) < width


def test_a_width_of_one_draws_nothing() -> None:
    random = RecordedRandomness()

    assert uniform(1, random) == 0
    assert uniform_many(1, 3, random) == [0, 0, 0]
    assert random.reads == []


@pytest.mark.parametrize("width", [0, -1])
def test_there_is_no_number_below_nothing(width: int) -> None:
    with pytest.raises(ValueError, match="no number below"):
        uniform(width, RecordedRandomness())
    with pytest.raises(ValueError, match="no number below"):
        uniform_many(width, 1, RecordedRandomness())


def test_high_bits_are_masked_and_what_is_too_large_is_drawn_again() -> None:
    """Of nine bits the first byte gives the highest one: 0xff01 is 257, which is not below 257."""
    random = RecordedRandomness(data=bytes.fromhex("ff01 fe2a"))

    assert uniform(257, random) == 0x2A
    assert random.reads == ["ff01", "fe2a"]


@given(width=WIDTHS, many=st.integers(0, 40), seed=st.text())
def test_many_numbers_at_once_are_those_of_single_draws(width: int, many: int, seed: str) -> None:
    one_by_one, together = RecordedRandomness(seed=seed), RecordedRandomness(seed=seed)

    assert uniform_many(width, many, together) == [uniform(width, one_by_one) for _ in range(many)]
    assert "".join(together.reads) == "".join(one_by_one.reads)


def test_numbers_are_spread_evenly() -> None:
    numbers = uniform_many(10, 10_000, RecordedRandomness(seed="even"))

    assert all(850 < numbers.count(number) < 1150 for number in range(10))


@given(sizes=st.lists(st.integers(1, 70)), block=st.integers(1, 100))
def test_a_pool_gives_the_same_bytes_in_the_same_order(sizes: list[int], block: int) -> None:
    source = RecordedRandomness(seed="pool")
    pool = PooledRandomness(RecordedRandomness(seed="pool"), block)

    assert [pool(size) for size in sizes] == [source(size) for size in sizes]


def test_a_pool_asks_for_blocks() -> None:
    asked: list[int] = []
    numbers = count()

    def source(n: int) -> bytes:
        asked.append(n)
        return bytes(next(numbers) % 256 for _ in range(n))

    pool = PooledRandomness(source, block=8)

    assert [pool(3), pool(3), pool(3), pool(20)] == [
        bytes(range(3)),
        bytes(range(3, 6)),
        bytes(range(6, 9)),
        bytes(range(9, 29)),
    ]
    assert asked == [8, 8, 13]

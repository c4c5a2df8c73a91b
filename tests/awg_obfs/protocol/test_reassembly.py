from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.protocol.datagram_wire import Piece
from awg_obfs.protocol.reassembly import MAX_INCOMPLETE, MAX_WAITING, PATIENCE, Reassembly


def piece(number: int, index: int, count: int = 2, body: bytes = b"x") -> Piece:
    return Piece(1, number, index, count, body)


def test_pieces_of_several_datagrams_may_come_mixed_and_twice() -> None:
    reassembly = Reassembly()

    assert reassembly.add(piece(1, 0, body=b"a"), 0.0) is None
    assert reassembly.add(piece(2, 1, body=b"D"), 0.0) is None
    assert reassembly.add(piece(1, 0, body=b"a"), 0.0) is None
    assert reassembly.add(piece(2, 0, body=b"C"), 0.0) == b"CD"
    assert reassembly.add(piece(1, 1, body=b"b"), 0.0) == b"ab"
    assert reassembly.dropped == 0


def test_a_datagram_whose_pieces_do_not_come_in_time_is_given_up() -> None:
    reassembly = Reassembly()
    reassembly.add(piece(1, 0), 10.0)

    assert reassembly.add(piece(1, 1), 10.0 + PATIENCE + 0.01) is None
    assert reassembly.dropped == 1


def test_a_number_that_comes_round_begins_another_datagram() -> None:
    reassembly = Reassembly()
    reassembly.add(piece(1, 0, count=3), 0.0)

    assert reassembly.add(piece(1, 0, count=2, body=b"n"), 0.0) is None
    assert reassembly.add(piece(1, 1, count=2, body=b"w"), 0.0) == b"nw"
    assert reassembly.dropped == 1


def test_only_so_many_datagrams_wait_and_the_oldest_are_given_up() -> None:
    reassembly = Reassembly()
    for number in range(MAX_INCOMPLETE + 1):
        reassembly.add(piece(number, 0), 0.0)

    assert reassembly.dropped == 1
    assert reassembly.add(piece(1, 1), 0.0) == b"xx"


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(0, 60_000), st.floats(0, 1)), max_size=60
    )
)
def test_what_waits_is_bounded_whatever_comes(arrivals: list[tuple[int, int, int, float]]) -> None:
    reassembly, now = Reassembly(), 0.0
    for number, index, size, later in arrivals:
        now += later
        reassembly.add(piece(number, index, count=4, body=bytes(size)), now)

        waiting = [sum(map(len, each.pieces.values())) for each in reassembly._incomplete.values()]
        assert sum(waiting) == reassembly._size <= MAX_WAITING
        assert len(waiting) <= MAX_INCOMPLETE

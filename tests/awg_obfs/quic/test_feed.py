"""Bytes of streams, given out in turn."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.quic.feed import PIECE, Feed


@attrs.define(eq=False)
class Core:
    """Takes what it is given, and sends it when told to."""

    given: list[tuple[int, bytes, bool]] = attrs.field(factory=list[tuple[int, bytes, bool]])
    waiting: dict[int, int] = attrs.field(factory=dict[int, int])
    feed: Feed = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.feed = Feed(self.take, lambda stream_id: self.waiting.get(stream_id, 0))

    def take(self, stream_id: int, data: bytes, end: bool) -> None:
        """See `Feed.give`."""
        self.given.append((stream_id, data, end))


def test_no_more_is_given_than_there_is_room() -> None:
    core = Core()
    core.feed.add(0, b"abcdef", end=True)
    assert core.feed.size(0) == 6
    assert core.feed.give_out(4)
    assert core.feed.give_out(4)
    assert core.given == [(0, b"abcd", False), (0, b"ef", True)]
    assert not core.feed
    assert not core.feed.give_out(4)


def test_streams_take_turns() -> None:
    core = Core()
    for stream_id in (0, 4, 8):
        core.feed.add(stream_id, bytes(2 * PIECE), end=False)
    for _ in range(6):
        core.feed.give_out(PIECE)
    assert [stream_id for stream_id, _, _ in core.given] == [0, 4, 8, 0, 4, 8]


def test_a_stream_that_has_enough_waiting_is_passed_over() -> None:
    core = Core(waiting={0: PIECE, 4: PIECE - 1})
    core.feed.add(0, b"held", end=False)
    core.feed.add(4, b"ab", end=False)
    assert core.feed.give_out(100)
    assert core.given == [(4, b"a", False)]
    core.waiting.clear()
    core.feed.give_out(100)
    assert core.given[1:] == [(0, b"held", False), (4, b"b", False)]


def test_an_end_needs_no_room_of_its_own() -> None:
    core = Core(waiting={0: PIECE})
    core.feed.add(0, b"", end=True)
    assert core.feed.give_out(1)
    assert core.given == [(0, b"", True)]
    core.feed.add(4, b"", end=True)
    assert not core.feed.give_out(0)


def test_what_is_forgotten_is_not_given() -> None:
    core = Core()
    core.feed.add(0, b"reset", end=True)
    core.feed.forget(0)
    core.feed.forget(4)
    assert core.feed.size(0) == 0
    assert not core.feed.give_out(100)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=50), st.integers(0, 60)), max_size=40),
)
def test_every_byte_is_given_once_and_in_order(steps: list[tuple[int, bytes, int]]) -> None:
    core = Core()
    sent = dict.fromkeys(range(4), b"")
    for number, data, room in steps:
        core.feed.add(number, data, end=False)
        sent[number] += data
        core.feed.give_out(room)
    for number in range(4):
        core.feed.add(number, b"", end=True)
    core.feed.give_out(10_000)
    for number in range(4):
        pieces = [(data, end) for stream_id, data, end in core.given if stream_id == number]
        assert b"".join(data for data, _ in pieces) == sent[number]
        assert [end for _, end in pieces] == [False] * (len(pieces) - 1) + [True]

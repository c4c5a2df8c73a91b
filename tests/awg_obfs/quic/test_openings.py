"""Which streams the peer has opened."""

from __future__ import annotations

from awg_obfs.quic.openings import Openings


def test_speaking_of_a_stream_opens_it_once_and_those_before_it() -> None:
    openings = Openings(next_stream=0, most=4)
    assert openings.opens(8)
    assert not openings.opens(8)
    assert len(openings) == 2
    assert openings.opens(4)
    assert not openings.opens(4)
    assert openings.opens(12)
    assert not openings.opens(1)
    assert len(openings) == 1


def test_ends_are_kept_of_streams_that_may_come() -> None:
    openings = Openings(next_stream=1, most=4)
    openings.opens(9)
    for stream_id in (0, 1, 9, 13, 1 << 61 | 1):
        openings.keep_end(stream_id, 5)
    assert [openings.take_end(stream_id) for stream_id in (0, 1, 9, 13)] == [None, 5, None, 5]
    assert openings.take_end(13) is None


def test_so_many_ends_are_kept() -> None:
    openings = Openings(next_stream=0, most=4)
    for stream_id in range(0, 4000, 4):
        openings.keep_end(stream_id, 5)
    assert len(openings) == 4

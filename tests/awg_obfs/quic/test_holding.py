"""Which streams are held."""

from __future__ import annotations

import attrs

from awg_obfs.quic.holding import Holding
from awg_obfs.quic.notes import GO_ON_AT, HOLD_AT, Kind, Note


@attrs.define
class Reader:
    """A stream with a reader that is behind."""

    buffered: int
    ended: bool = False


def test_a_stream_is_held_once_and_goes_on_once() -> None:
    holding, reader = Holding(), Reader(HOLD_AT + 1)
    holding.filled(4, reader.buffered)
    assert holding.take_notes({4: reader}) == [Note(Kind.HOLD, 4)]
    holding.filled(4, reader.buffered)
    assert holding.take_notes({4: reader}) == []
    reader.buffered = GO_ON_AT + 1
    assert holding.take_notes({4: reader}) == []
    reader.buffered = GO_ON_AT
    assert holding.take_notes({4: reader}) == [Note(Kind.GO_ON, 4)]
    assert holding.take_notes({4: reader}) == []


def test_readers_that_came_meanwhile_and_streams_that_ended_are_let_be() -> None:
    holding, reader = Holding(), Reader(HOLD_AT)
    holding.filled(4, HOLD_AT + 1)
    assert holding.take_notes({4: reader}) == []
    holding.filled(8, HOLD_AT + 1)
    assert holding.take_notes({8: Reader(HOLD_AT + 1, ended=True)}) == []
    holding.filled(12, HOLD_AT)
    assert holding.take_notes({12: Reader(HOLD_AT + 1)}) == []


def test_a_stream_that_is_over_is_let_go() -> None:
    holding = Holding()
    holding.filled(4, HOLD_AT + 1)
    holding.take_notes({4: Reader(HOLD_AT + 1)})
    assert holding.take_notes({}) == [Note(Kind.GO_ON, 4)]
    holding.filled(8, HOLD_AT + 1)
    assert holding.take_notes({}) == []

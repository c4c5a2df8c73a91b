"""Whose bytes go to the engine next."""

from __future__ import annotations

import math

import attrs
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.quic.settings import KIB
from awg_obfs.quic.turns import PATIENCE, SMALL, TURNS, Turns

BUFFER = 256 * KIB
BULK = 64 * KIB
FAST = math.inf


@attrs.define(eq=False)
class World:
    """An engine that holds what streams wrote until it is told to send."""

    unsent: dict[int, int] = attrs.field(factory=dict[int, int])
    turns: Turns = attrs.field(init=False)
    now: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.turns = Turns(lambda stream_id: self.unsent.get(stream_id, 0), BUFFER)

    def write(self, stream_id: int, amount: int) -> int:
        """Write what may be written of *amount*; wait with the rest."""
        room = min(max(self.turns.room(stream_id, amount, self.now), 0), amount)
        if room:
            self.unsent[stream_id] = self.unsent.get(stream_id, 0) + room
            self.turns.wrote(stream_id, room)
        if room < amount:
            self.turns.wait(stream_id)
        return room

    def send(self, *stream_ids: int) -> None:
        """All that *stream_ids* have in the engine leaves."""
        for stream_id in stream_ids:
            self.unsent[stream_id] = 0

    def flushed(self, held: frozenset[int] = frozenset(), rate: float = FAST) -> list[int]:
        """Return who may go on."""
        self.turns.flushed(self.now, rate)
        return list(self.turns.admit(set(held), self.now))


def crowd() -> World:
    """As many bulk transfers as have a turn at once have theirs; number `TURNS` waits."""
    world = World()
    for stream_id in range(TURNS):
        assert world.write(stream_id, BULK) == BULK
    assert world.write(TURNS, BULK) == 0
    return world


def test_a_turn_goes_on_to_the_next_when_it_has_left() -> None:
    world = crowd()
    assert world.flushed() == []
    world.send(2)
    assert world.flushed() == [TURNS]
    assert world.write(TURNS, BULK) == BULK
    assert world.write(2, BULK) == 0


def test_what_is_small_goes_at_once_and_only_once() -> None:
    world = crowd()
    assert world.write(100, 1000) == 1000
    assert world.write(100, SMALL) == 0
    assert world.write(101, SMALL) == SMALL
    assert world.write(102, SMALL + 1) == 0


def test_those_who_wait_are_served_in_order() -> None:
    world = crowd()
    for stream_id in range(10, 20):
        world.write(stream_id, BULK)
    served: list[int] = []
    while len(served) < 11:
        world.send(*world.unsent)
        for stream_id in world.flushed():
            served.append(stream_id)
            assert world.write(stream_id, BULK) == BULK
    assert served[:11] == [TURNS, *range(10, 20)]


def test_a_turn_that_does_not_move_passes_on_in_time() -> None:
    """Its reader may be held up; nothing else may tell us so."""
    world = crowd()
    world.flushed()
    assert world.turns.next_timer() == PATIENCE
    world.now = PATIENCE / 2
    world.unsent[0] -= 1000
    assert world.flushed() == []
    world.now = PATIENCE
    assert world.flushed() == [TURNS]
    # The first one has moved meanwhile.
    assert world.write(0, BULK) == BULK


def test_a_turn_is_worth_what_the_path_carries_in_a_moment() -> None:
    """On a slow path streams change more often."""
    for rate, most in ((FAST, BUFFER), (2e6, 40_000), (1e4, 16 * KIB)):
        world = crowd()
        world.send(*range(TURNS))
        assert world.flushed(rate=rate) == [TURNS]
        world.write(50, BULK)
        assert world.write(TURNS, BUFFER) == most
        assert world.write(TURNS, BUFFER) == 0


def test_nobody_is_stopped_while_nobody_waits() -> None:
    world = World()
    for _ in range(100):
        assert world.write(0, BULK) == BULK
        world.send(0)
    assert not world.turns.contested
    assert world.turns.next_timer() == math.inf


def test_those_that_the_peer_holds_are_passed_over() -> None:
    world = crowd()
    world.write(10, BULK)
    world.send(0)
    assert world.flushed(held=frozenset({TURNS})) == [10]
    world.send(1)
    assert world.flushed() == [TURNS]


def test_a_stream_that_is_over_leaves_its_turn_and_its_place() -> None:
    world = crowd()
    world.write(10, BULK)
    world.turns.forget(TURNS)
    world.turns.forget(0)
    assert world.flushed() == [10]
    assert not world.turns.contested


@given(st.data())
def test_everybody_gets_everything_through(data: st.DataObject) -> None:
    """Whatever the engine sends when, and whichever streams are stuck for a while."""
    world = World()
    left = {number: data.draw(st.integers(1, 3 * BUFFER), label="bytes") for number in range(12)}
    running = set(left)
    for _ in range(3000):
        for number in sorted(running):
            left[number] -= world.write(number, min(left[number], BULK))
        running = {number for number in running if left[number] and number not in world.turns._waiting}
        stuck = data.draw(st.sets(st.integers(0, 11)), label="stuck") if world.now < 1 else set[int]()
        world.send(*(number for number in world.unsent if number not in stuck))
        world.now += 0.01
        running |= set(world.flushed())
        running = {number for number in running if left[number]}
        assert all(unsent <= BUFFER for unsent in world.unsent.values())
        if not any(left.values()):
            break
    assert not any(left.values())

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.policy.room import Room


def test_while_there_is_room_anybody_may_have_all_of_it() -> None:
    room = Room(100)
    room.enter()
    room.enter()

    assert room.take(0, 60)
    assert room.take(60, 40)
    assert not room.take(100, 1)
    assert room.held == 100


def test_who_has_less_than_a_share_goes_on_though_all_is_taken() -> None:
    room = Room(100)
    room.enter()
    room.enter()
    room.take(0, 100)

    assert room.take(0, 50)
    assert not room.take(50, 1)
    assert room.held == 150


def test_what_is_given_back_may_be_taken_again() -> None:
    room = Room(100)
    room.enter()
    room.take(0, 100)
    room.give_back(30)

    assert room.take(70, 30)
    assert not room.take(100, 1)


def test_who_leaves_gives_everything_back_and_shares_grow() -> None:
    room = Room(100)
    room.enter()
    room.enter()
    room.take(0, 100)
    room.take(0, 50)

    room.leave(100)

    assert (room.held, room.holders) == (50, 1)
    assert room.take(50, 50)
    assert not room.take(100, 1)


def test_shares_that_shrink_do_not_add_up_for_ever() -> None:
    room = Room(100)
    taken = []
    for _ in range(10):
        room.enter()
        share = 100 // room.holders
        taken.append(share if room.take(0, share) else 0)

    assert taken == [100, 50, 33, 0, 0, 16, 0, 0, 0, 0]
    assert room.held == sum(taken)


def test_without_a_bound_there_is_always_room() -> None:
    room = Room(float("inf"))
    room.enter()

    assert room.take(0, 1 << 40)


@attrs.define(eq=False)
class Holder:
    """Somebody with so many bytes."""

    held: int = 0


@given(st.lists(st.tuples(st.sampled_from("etgl"), st.integers(0, 5), st.integers(1, 80)), max_size=200))
def test_nobody_ever_has_more_than_there_is_twice(steps: list[tuple[str, int, int]]) -> None:
    room, holders, arrived = Room(100), list[Holder](), 0
    for what, which, count in steps:
        if what == "e":
            room.enter()
            holders.append(Holder())
            arrived += 1
        elif holders:
            holder = holders[which % len(holders)]
            if what == "t" and room.take(holder.held, count):
                holder.held += count
            elif what == "g":
                given_back = min(count, holder.held)
                holder.held -= given_back
                room.give_back(given_back)
            elif what == "l":
                holders.remove(holder)
                room.leave(holder.held)
        assert room.held == sum(holder.held for holder in holders)
        assert room.holders == len(holders)
        assert room.held <= 2 * room.most

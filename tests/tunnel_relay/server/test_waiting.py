"""What waits; that links take it, test_switch shows."""

from __future__ import annotations

from tunnel_relay.protocol.frames import HEADER_LENGTH, Frame, FrameType
from tunnel_relay.server.waiting import MOST_WAITING, Room, Waiting

FRAME = Frame(FrameType.DATA, 1, 1, 1, bytes(1000 - HEADER_LENGTH))


def test_what_waits_is_counted_until_it_is_taken_or_dropped() -> None:
    room = Room()
    one, other = Waiting(room), Waiting(room)
    for waiting in (one, one, one, other):
        waiting.add(FRAME)
    assert (len(one), one.bytes, room.waiting) == (3, 3000, 4000)
    assert len(one.frames_to_send(1001, 0.0)) == 2
    assert one.next_timer() is None
    assert (len(one), one.bytes, room.waiting) == (1, 1000, 2000)
    one.drop()
    assert (len(one), one.bytes, room.waiting) == (0, 0, 1000)


def test_where_memory_is_taken_each_has_its_share() -> None:
    room = Room(10_000)
    room.ways = 4
    assert room.has_for(FRAME, 9000)
    assert not Room().has_for(FRAME, MOST_WAITING - 999)
    room.waiting = 10_000
    assert room.has_for(FRAME, 1500)
    assert not room.has_for(FRAME, 1501)

"""How many sessions and streams each user has."""

from __future__ import annotations

import attrs
import pytest

from tunnel_relay.policy.access import FREE, Access, Denial, Held
from tunnel_relay.server.census import GRACE, Census, Counted, Side

NOW = 1000.0


def census(sessions: int = 2, streams: int = 3, grace: float = GRACE) -> Census:
    tier = attrs.evolve(FREE, most={Held.SESSIONS: sessions, Held.STREAMS: streams})
    return Census(Access((tier,)), grace)


def enter(where: Census, token: str = "a", user: str = "alice", now: float = NOW) -> Counted:
    counted = where.enter(user, "free", token, now)
    assert isinstance(counted, Counted)
    return counted


def test_sessions_have_a_bound_for_each_user() -> None:
    where = census(sessions=2)
    first, _ = enter(where, "a"), enter(where, "b")
    assert isinstance(where.enter("alice", "free", "c", NOW), Denial)
    enter(where, "c", "bob")
    # It is the same session, though over another connection.
    assert enter(where, "a") is first
    where.leave(first, NOW)
    assert isinstance(where.enter("alice", "free", "c", NOW), Denial)
    where.leave(first, NOW)
    enter(where, "c")


def test_users_may_call_their_sessions_alike() -> None:
    where = census()
    assert enter(where, "a", "alice") is not enter(where, "a", "bob")


def test_a_stream_ends_with_both_its_halves_or_at_once() -> None:
    where = census(streams=3)
    counted = enter(where)
    for stream in (1, 3, 5):
        assert where.open(counted, stream, "free", NOW) is None
    assert isinstance(where.open(counted, 7, "free", NOW), Denial)
    where.half_close(counted, 1, Side.CLIENT)
    where.half_close(counted, 1, Side.CLIENT)
    assert where.streams == 3
    where.half_close(counted, 1, Side.FAR)
    assert where.streams == 2
    where.close(counted, 3)
    where.close(counted, 3)
    where.half_close(counted, 3, Side.FAR)
    assert where.streams == 1
    assert where.open(counted, 7, "free", NOW) is None


def test_a_stream_is_not_opened_twice() -> None:
    where = census(streams=3)
    counted = enter(where)
    assert where.open(counted, 1, "free", NOW) is None
    denial = where.open(counted, 1, "free", NOW)
    assert denial is not None
    assert denial.detail == "there is a stream 1 already"
    where.leave(counted, NOW, lost=True)
    assert where.access.held("alice", Held.STREAMS) == 0


@pytest.mark.parametrize("grace", [GRACE, 7.0])
@pytest.mark.parametrize("kept", [True, False])
def test_streams_are_counted_while_their_session_may_come_back(grace: float, kept: bool) -> None:
    where, seconds = census(streams=1, grace=grace), grace - 1 if kept else grace
    counted = enter(where)
    where.open(counted, 1, "free", NOW)
    where.leave(counted, NOW)
    enter(where, "b", now=NOW + seconds)
    assert where.streams == kept
    assert (enter(where, "a", now=NOW + seconds) is counted) is kept


def test_a_session_that_came_back_is_not_forgotten() -> None:
    where = census()
    counted = enter(where)
    where.open(counted, 1, "free", NOW)
    where.leave(counted, NOW)
    enter(where, now=NOW + 1)
    enter(where, "b", now=NOW + GRACE + 1)
    assert where.streams == 1


def test_a_session_that_is_lost_is_forgotten_at_once() -> None:
    where = census()
    counted = enter(where)
    where.open(counted, 1, "free", NOW)
    where.leave(counted, NOW, lost=True)
    assert where.streams == 0
    assert where.access.held("alice", Held.STREAMS) == where.access.held("alice", Held.SESSIONS) == 0
    assert enter(where) is not counted

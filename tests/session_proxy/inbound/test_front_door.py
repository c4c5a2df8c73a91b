from __future__ import annotations

import math

import attrs
import pytest
import trio
import trio.testing

from session_proxy.errors import RefusedError
from session_proxy.inbound.front_door import Visit
from session_proxy.outbound.socket_stream import PlainSocketStream
from session_proxy.profile.model import Limits
from session_proxy.profile.secret import Secret
from session_proxy.target import Target
from tests.support.doors import AUTH, FakeDialer, open_inner_door
from tests.support.sockets import LOOPBACK, echo, open_server, stream_pair


@pytest.mark.parametrize(
    ("user", "password", "admitted"),
    [
        (b"user", b"secret", True),
        (b"user", b"wrong", False),
        (b"other", b"secret", False),
        (b"", b"", False),
        (b"\xff\xfe", b"\xff", False),
    ],
)
async def test_only_the_right_credentials_are_admitted(user: bytes, password: bytes, admitted: bool) -> None:
    async with open_inner_door(auth=AUTH) as (door, _):
        assert door.admits(user, password) is admitted


async def test_without_auth_anybody_is_admitted() -> None:
    async with open_inner_door() as (door, _):
        assert door.admits(b"anybody", b"")
        assert (door.next_id(), door.next_id()) == (1, 2)


async def test_a_dial_that_works_is_noted(autojump_clock: trio.testing.MockClock) -> None:
    async with open_server(echo) as port, open_inner_door(FakeDialer(waits=2.0)) as (door, _):
        visit = Visit(1, "client", trio.current_time())
        with stream_pair() as (_client, near):
            stream = await door.dial(visit, near, Target(LOOPBACK, port))
            await stream.aclose()
    closed = visit.closed(trio.current_time())
    assert isinstance(stream, PlainSocketStream)
    assert (closed.target, closed.rule, closed.upstream) == (Target(LOOPBACK, port), "routes[0]", "direct")
    assert closed.connect_duration == pytest.approx(2.0, abs=0.01)


async def test_a_dial_that_fails_is_noted() -> None:
    target = Target("example.com", 80)
    dialer = FakeDialer({target: RefusedError("connection refused", upstream="dev")})
    async with open_inner_door(dialer) as (door, _):
        visit = Visit(1, "client", trio.current_time())
        with stream_pair() as (_client, near), pytest.raises(RefusedError):
            await door.dial(visit, near, target)
    closed = visit.closed(trio.current_time())
    assert (closed.outcome, closed.detail, closed.upstream) == ("refused", "connection refused", "dev")
    assert (closed.rule, closed.connect_duration) == ("routes[0]", None)


async def test_a_dial_is_given_up_when_the_client_leaves() -> None:
    async with open_inner_door(FakeDialer(waits=math.inf)) as (door, _):
        visit = Visit(1, "client", trio.current_time())
        with stream_pair() as (client, near), trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def dial() -> None:
                    with pytest.raises(trio.BrokenResourceError):
                        await door.dial(visit, near, Target("example.com", 80))

                nursery.start_soon(dial)
                await trio.testing.wait_all_tasks_blocked()
                client.close()
    assert visit.connect_duration is None


async def test_who_only_waits_is_sent_away_when_the_door_drains() -> None:
    async with open_inner_door() as (door, _):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with door.pause() as scope:
                    await trio.sleep_forever()
                assert scope.cancelled_caught

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            door.drain()
        with door.pause() as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught


def test_a_visit_that_nothing_ended_was_drained() -> None:
    assert Visit(1, "client", 0.0).closed(2.5).outcome == "drained"
    assert Visit(1, "client", 0.0).closed(2.5).duration == 2.5


async def test_what_holds_may_change() -> None:
    async with open_inner_door(auth=AUTH, limits=Limits(handshake=5, idle=7)) as (door, _):
        assert not door.admits(b"user", b"other")
        limits = Limits(handshake=1, idle=2, connections=3)

        door.change(attrs.evolve(AUTH, password=Secret("literal", "", "other")), limits)

        assert door.admits(b"user", b"other")
        assert (door.limits, door.patience.limit) == (limits, 1)
        door.change(None, limits)
        assert door.admits(b"anybody", b"")

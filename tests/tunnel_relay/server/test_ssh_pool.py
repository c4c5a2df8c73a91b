"""A few connections for many streams, in virtual time; `test_relay_ssh.py` has real ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tunnel_relay.background import open_background
from tunnel_relay.errors import ChannelRefusedError, SshDisconnectedError
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.relay_stream import StreamRefusedError
from tunnel_relay.server.ssh_pool import PoolSettings, SshPool
from tunnel_relay.ssh.session import SshSession

SETTINGS = PoolSettings(most=3, busy=2, open=10, idle=100, check=30, answer=10, rest=50)


@attrs.define(eq=False)
class FakeSession:
    """What a pool uses of an `SshSession`."""

    number: int
    channels: int = 0
    silent: bool = False
    lost: trio.Event = attrs.field(factory=trio.Event)
    answer: trio.Event = attrs.field(factory=trio.Event)

    async def open_direct_tcpip(self, host: str, port: int) -> tuple[int, str, int]:
        if self.lost.is_set():
            raise SshDisconnectedError("lost")
        if host == "closed":
            raise ChannelRefusedError(2, "Connection refused")
        if host == "slow":
            await trio.sleep_forever()
        self.channels += 1
        return self.number, host, port

    async def ping(self) -> float:
        if self.silent:
            await self.answer.wait()
        if self.lost.is_set():
            raise SshDisconnectedError("lost")
        return 0.0

    async def wait_closed(self) -> None:
        await self.lost.wait()


@attrs.define(eq=False)
class World:
    """A pool, and what it connected to."""

    pool: SshPool = attrs.field(init=False)
    sessions: list[FakeSession] = attrs.field(factory=list[FakeSession])
    attempts: int = 0
    failure: StreamRefusedError | None = None
    failure_unless_needed: StreamRefusedError | None = None
    setup: float = 1.0
    wanted: bool = False

    @asynccontextmanager
    async def connect(self, needed: bool) -> AsyncGenerator[SshSession]:
        self.attempts += 1
        if not needed and self.failure_unless_needed is not None:
            raise self.failure_unless_needed
        await trio.sleep(self.setup)
        if self.failure is not None:
            raise self.failure
        session = FakeSession(self.attempts)
        self.sessions.append(session)
        try:
            yield cast("SshSession", session)
        finally:
            self.sessions.remove(session)

    async def open(self, host: str = "db") -> int:
        """Open a stream; return the number of the connection that carries it."""
        opened = await self.pool.open(host, 1)
        return cast("tuple[int, str, int]", opened)[0]


@asynccontextmanager
async def open_world(settings: PoolSettings = SETTINGS) -> AsyncGenerator[World]:
    async with open_background() as nursery:
        world = World()
        world.pool = SshPool(nursery, world.connect, lambda: world.wanted, settings)
        yield world
        nursery.cancel_scope.cancel()


async def test_the_first_stream_makes_a_connection_and_others_share_it(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        assert world.pool.idle
        numbers: list[int] = []

        async def note() -> None:
            numbers.append(await world.open())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(note)
            nursery.start_soon(note)
        assert (numbers, world.pool.connections, world.pool.streams) == ([1, 1], 1, 2)


async def test_a_warm_pool_does_not_keep_a_stream_waiting(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.pool.warm()
        world.pool.warm()
        await trio.sleep(2)
        began = trio.current_time()
        assert await world.open() == 1
        assert trio.current_time() == began


async def test_as_many_are_kept_warm_as_should_be(autojump_clock: MockClock) -> None:
    async with open_world(attrs.evolve(SETTINGS, warm=2)) as world:
        world.wanted = True
        world.pool.warm()
        await trio.sleep(500)
        assert (world.pool.connections, world.attempts) == (2, 2)
        world.sessions[0].lost.set()
        await trio.sleep(2)
        assert (world.pool.connections, world.attempts) == (2, 3)
        world.wanted = False
        await trio.sleep(500)
        assert world.pool.idle


async def test_warming_that_fails_rests(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.wanted = True
        world.failure = StreamRefusedError(Reason.UNREACHABLE, "no way")
        for _ in range(20):
            world.pool.warm()
            await trio.sleep(2)
        assert world.attempts == 1


async def test_what_is_needed_may_be_had_where_what_is_not_may_not(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.failure_unless_needed = StreamRefusedError(Reason.LIMIT, "no more")
        world.pool.warm()
        assert await world.open() == 2


async def test_a_pool_need_not_be_warm(autojump_clock: MockClock) -> None:
    async with open_world(attrs.evolve(SETTINGS, warm=0)) as world:
        world.wanted = True
        world.pool.warm()
        await trio.sleep(2)
        assert world.pool.idle


async def test_busy_connections_get_company_up_to_the_bound(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(20):
            await world.open()
            await trio.sleep(2)
        assert world.attempts == 3
        assert sorted(session.channels for session in world.sessions) == [6, 7, 7]


async def test_the_least_loaded_connection_carries_a_stream(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(4):
            await world.open()
            await trio.sleep(2)
        first, second = world.sessions
        first.channels, second.channels = 1, 0
        assert await world.open() == second.number


async def test_why_there_is_no_connection_is_said_and_tried_again(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.failure = StreamRefusedError(Reason.UNREACHABLE, "no way")
        for _ in range(2):
            with pytest.raises(StreamRefusedError, match="no way"):
                await world.open()
        assert world.attempts == 2
        world.failure = None
        assert await world.open() == 3


async def test_growth_that_fails_rests(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await world.open()
        world.failure = StreamRefusedError(Reason.LIMIT, "no more")
        for _ in range(10):
            assert await world.open() == 1
            await trio.sleep(2)
        assert world.attempts == 2
        await trio.sleep(SETTINGS.rest)
        world.failure = None
        await world.open()
        await trio.sleep(2)
        assert world.pool.connections == 2


async def test_a_stream_finds_another_connection_where_one_is_lost(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await world.open()
        world.sessions[0].lost.set()
        assert await world.open() == 2


async def test_what_the_ssh_server_says_is_passed_on(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        with pytest.raises(StreamRefusedError, match="Connection refused") as caught:
            await world.open("closed")
        assert caught.value.reason is Reason.REFUSED
        with pytest.raises(StreamRefusedError, match="not connected in 10 s") as caught:
            await world.open("slow")
        assert caught.value.reason is Reason.TIMED_OUT
        assert world.pool.connections == 1


async def test_a_connection_that_nobody_uses_is_closed(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await world.open()
        await trio.sleep(500)
        assert world.pool.connections == 1
        world.sessions[0].channels = 0
        await trio.sleep(SETTINGS.idle + 2 * SETTINGS.check)
        assert world.pool.idle
        assert world.sessions == []


async def test_a_connection_that_does_not_answer_gets_no_new_streams_until_it_does(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as world:
        await world.open()
        first = world.sessions[0]
        first.silent = True
        await trio.sleep(SETTINGS.check + SETTINGS.answer + 2)
        assert await world.open() == 2
        first.answer.set()
        world.sessions[1].channels = 2
        await trio.sleep(1)
        assert await world.open() == 1


async def test_where_none_answers_and_there_may_be_no_more_one_is_tried_all_the_same(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as world:
        for _ in range(8):
            await world.open()
            await trio.sleep(2)
        assert world.pool.connections == 3
        for session in world.sessions:
            session.silent = True
        await trio.sleep(SETTINGS.check + SETTINGS.answer + 20)
        assert await world.open() in (1, 2, 3)


async def test_one_that_is_lost_while_it_is_asked_is_gone(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await world.open()
        session = world.sessions[0]
        session.silent = True
        await trio.sleep(SETTINGS.check + 1)
        session.lost.set()
        session.answer.set()
        await trio.sleep(1)
        assert world.pool.idle


async def test_a_pool_that_is_closed_has_no_connections(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.wanted = True
        await world.open()
        world.pool.close("that was it")
        await trio.testing.wait_all_tasks_blocked()
        assert world.pool.idle
        assert world.sessions == []
        for _ in range(2):
            with pytest.raises(StreamRefusedError, match="that was it") as caught:
                await world.open()
            assert caught.value.reason is Reason.LIMIT
        world.pool.warm()
        assert world.attempts == 1


async def test_a_connection_that_comes_after_the_pool_was_closed_is_not_kept(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as world, trio.open_nursery() as nursery:

        async def open_one() -> None:
            with pytest.raises(StreamRefusedError, match="that was it"):
                await world.open()

        nursery.start_soon(open_one)
        await trio.testing.wait_all_tasks_blocked()
        world.pool.close("that was it")
        await trio.sleep(2)
        assert world.pool.idle
        assert world.sessions == []


async def test_one_that_is_not_used_can_be_given_up(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        assert not world.pool.close_unused()
        await world.open()
        assert not world.pool.close_unused()
        world.sessions[0].channels = 0
        assert world.pool.close_unused()
        await trio.testing.wait_all_tasks_blocked()
        assert world.pool.idle
        assert world.sessions == []

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from session_proxy.inbound.epoll_mover import has_epoll
from session_proxy.inbound.movers import RelayEnd
from session_proxy.inbound.pipes import can_splice
from session_proxy.inbound.relaying import UNTOLD_LIMIT, Relays, Traffic, open_relays
from session_proxy.outbound.socket_stream import PlainSocketStream
from tests.support.sockets import read_all, read_exactly, stream_pair
from tunnel_relay.background import open_background

PATTERN = bytes(range(256)) * 16384


@attrs.define(eq=False)
class WholeStream(trio.abc.Stream):
    """A stream that knows no half-close, over one that does."""

    inner: trio.abc.Stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()


@attrs.frozen
class Line:
    """A client and a server with a relay between them, and what that counts."""

    client: PlainSocketStream
    server: trio.abc.Stream
    traffic: Traffic
    ends: list[RelayEnd]
    over: trio.Event


WAYS = [
    pytest.param(
        "epoll splice", marks=pytest.mark.skipif(not (can_splice() and has_epoll()), reason="Linux")
    ),
    pytest.param("epoll", marks=pytest.mark.skipif(not has_epoll(), reason="Linux")),
    pytest.param("splice", marks=pytest.mark.skipif(not can_splice(), reason="Linux")),
    "portable",
    "stream",
]


@asynccontextmanager
async def open_line(way: str, *, idle: float = 3600, whole: bool = False) -> AsyncGenerator[Line]:
    traffic, ends, over = Traffic(), list[RelayEnd](), trio.Event()

    async def carry(relays: Relays, near: PlainSocketStream, far: trio.abc.Stream) -> None:
        end = await relays.relay(near, far, traffic)
        ends.append(end)
        if end is not RelayEnd.FINISHED:
            near.reset_on_close()
        near.close()
        await trio.aclose_forcefully(far)
        over.set()

    async with (
        open_relays(idle=idle, splice="splice" in way, epoll="epoll" in way) as relays,
        open_background() as nursery,
    ):
        with stream_pair() as (client, near), stream_pair() as (far, server):
            if way == "stream":
                one, other = trio.testing.memory_stream_pair()
                nursery.start_soon(carry, relays, near, WholeStream(one) if whole else one)
                yield Line(client, other, traffic, ends, over)
            else:
                nursery.start_soon(carry, relays, near, far)
                yield Line(client, server, traffic, ends, over)


async def end_of(stream: trio.abc.Stream) -> None:
    assert isinstance(stream, trio.abc.HalfCloseableStream)
    await stream.send_eof()


@pytest.mark.parametrize("way", WAYS)
async def test_each_direction_ends_on_its_own(way: str) -> None:
    async with open_line(way) as line:
        await line.client.send_all(b"question")
        await line.client.send_eof()
        assert await read_all(line.server) == b"question"
        await line.server.send_all(b"late answer")
        await end_of(line.server)
        assert await read_all(line.client) == b"late answer"
        await line.over.wait()
        assert line.ends == [RelayEnd.FINISHED]
        assert line.traffic == Traffic(8, 11)


@pytest.mark.parametrize("way", WAYS)
async def test_much_goes_both_ways_and_is_counted(way: str) -> None:
    async with open_line(way) as line:
        received: list[bytes] = []

        async def send(stream: trio.abc.Stream) -> None:
            await stream.send_all(PATTERN)
            await end_of(stream)

        async def receive() -> None:
            received.append(await read_all(line.server))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, line.client)
            nursery.start_soon(send, line.server)
            nursery.start_soon(receive)
            received.append(await read_all(line.client))
        assert [data == PATTERN for data in received] == [True, True]
        await line.over.wait()
        assert line.traffic == Traffic(len(PATTERN), len(PATTERN))


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_resets_ends_it(way: str) -> None:
    async with open_line(way) as line:
        await line.client.send_all(b"x")
        assert await line.server.receive_some() == b"x"
        line.client.abort()
        await line.over.wait()
        assert line.ends == [RelayEnd.RESET]
        assert line.traffic.sent == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_destination_that_breaks_shows_as_a_reset(way: str) -> None:
    async with open_line(way) as line:
        await line.server.send_all(b"half an ans")
        assert await read_exactly(line.client, 11) == b"half an ans"
        if isinstance(line.server, PlainSocketStream):
            line.server.abort()
        else:
            assert isinstance(line.server, trio.StapledStream)
            line.server.receive_stream.close()  # type: ignore[attr-defined]
            await line.client.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await line.client.receive_some()
        await line.over.wait()
        assert line.ends == [RelayEnd.RESET]


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_idle_is_ended(way: str, autojump_clock: trio.testing.MockClock) -> None:
    async with open_line(way, idle=100) as line:
        for _ in range(3):
            await trio.sleep(90)
            await line.client.send_all(b"x")
            assert await line.server.receive_some() == b"x"
        begin = trio.current_time()
        assert line.ends == []
        await line.over.wait()
        assert line.ends == [RelayEnd.IDLE]
        assert 100 <= trio.current_time() - begin <= 125


@pytest.mark.parametrize("way", WAYS)
async def test_a_relay_that_is_cut_off_has_counted(way: str) -> None:
    traffic = Traffic()
    async with open_relays(idle=60, splice="splice" in way, epoll="epoll" in way) as relays:
        with stream_pair() as (client, near), stream_pair() as (far, server):
            one, other = trio.testing.memory_stream_pair()
            with trio.CancelScope() as scope:
                async with open_background() as nursery:
                    nursery.start_soon(relays.relay, near, one if way == "stream" else far, traffic)
                    await client.send_all(b"hello")
                    assert await (other if way == "stream" else server).receive_some() == b"hello"
                    scope.cancel()
    assert traffic == Traffic(5, 0)


async def test_a_destination_that_cannot_be_told_of_the_end_gets_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_line("stream", whole=True) as line:
        await line.client.send_eof()
        await trio.sleep(UNTOLD_LIMIT / 2)
        await line.server.send_all(b"answer")
        assert await line.client.receive_some() == b"answer"
        begin = trio.current_time()
        await line.over.wait()
        assert line.ends == [RelayEnd.FINISHED]
        assert UNTOLD_LIMIT / 2 <= trio.current_time() - begin <= 2 * UNTOLD_LIMIT


async def test_a_destination_that_cannot_be_told_does_not_hold_up_a_drain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one, _ = trio.testing.memory_stream_pair()
    async with open_relays(idle=3600) as relays:
        with stream_pair() as (client, near):
            begin = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relays.relay, near, WholeStream(one), Traffic())
                await client.send_eof()
                await trio.sleep(1)
                relays.drain()
            assert trio.current_time() - begin == pytest.approx(1)


async def test_errors_of_the_block_come_out_as_they_are() -> None:
    with pytest.raises(KeyError):
        async with open_relays(idle=1):
            raise KeyError

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from session_proxy.inbound.epoll_mover import EVENTS, EpollMover, has_epoll
from session_proxy.inbound.movers import RelayEnd, SocketRelay
from session_proxy.inbound.pipes import PipePool
from session_proxy.inbound.pumping import Workshop
from session_proxy.outbound.socket_stream import PlainSocketStream
from tests.support.sockets import read_exactly, stream_pair
from tunnel_relay.background import open_background

pytestmark = pytest.mark.skipif(not has_epoll(), reason="this system has no epoll(7)")


@attrs.frozen
class Line:
    """A relay between two connections; the test holds the outer ends."""

    client: PlainSocketStream
    server: PlainSocketStream
    relay: SocketRelay


@asynccontextmanager
async def open_mover() -> AsyncGenerator[EpollMover]:
    mover = EpollMover()
    async with open_background() as nursery:
        nursery.start_soon(mover.run)
        yield mover


@asynccontextmanager
async def open_line(mover: EpollMover, workshop: Workshop | None = None) -> AsyncGenerator[Line]:
    with stream_pair() as (client, near), stream_pair() as (far, server):
        relay = SocketRelay.between(near.socket, far.socket, workshop or Workshop(None))

        async def carry() -> None:
            await mover.carry(relay)
            near.close()
            far.close()

        async with open_background() as nursery:
            nursery.start_soon(carry)
            yield Line(client, server, relay)


async def test_bytes_that_were_there_before_are_found() -> None:
    with stream_pair() as (client, near), stream_pair() as (far, server):
        await client.send_all(b"early")
        await trio.lowlevel.wait_readable(near.socket)
        relay = SocketRelay.between(near.socket, far.socket, Workshop(None))
        async with open_mover() as mover, open_background() as nursery:
            nursery.start_soon(mover.carry, relay)
            assert await server.receive_some() == b"early"


async def test_many_small_messages_go_both_ways() -> None:
    async with open_mover() as mover, open_line(mover) as line:
        for number in range(200):
            message = b"%d" % number
            await line.client.send_all(message)
            assert await line.server.receive_some() == message
            await line.server.send_all(message[::-1])
            assert await line.client.receive_some() == message[::-1]


@pytest.mark.parametrize("splice", [False, True])
async def test_much_goes_both_ways_at_once(splice: bool) -> None:
    data = bytes(range(256)) * 131072
    workshop = Workshop(PipePool() if splice else None)
    async with open_mover() as mover, open_line(mover, workshop) as line:
        received: dict[str, bytearray] = {"up": bytearray(), "down": bytearray()}

        async def move(direction: str, source: PlainSocketStream, sink: PlainSocketStream) -> None:
            async def send() -> None:
                await source.send_all(data)
                await source.send_eof()

            nursery.start_soon(send)
            async for piece in sink:
                received[direction] += piece

        async with trio.open_nursery() as nursery:
            nursery.start_soon(move, "up", line.client, line.server)
            nursery.start_soon(move, "down", line.server, line.client)
        assert (received["up"] == data, received["down"] == data) == (True, True)
        assert line.relay.end is RelayEnd.FINISHED
        assert line.relay.progress() == 2 * len(data)
    workshop.close()


async def test_a_reader_that_stands_still_stops_only_its_own_relay() -> None:
    async with (
        open_mover() as mover,
        open_line(mover) as stuck,
        open_line(mover) as free,
        open_background() as nursery,
    ):
        nursery.start_soon(stuck.client.send_all, bytes(64 << 20))
        for _ in range(20):
            await free.client.send_all(b"ping")
            assert await free.server.receive_some() == b"ping"


async def test_urgent_data_does_not_hide_what_follows() -> None:
    """A read stops at urgent data without having read everything: nobody tells again that there is more."""
    async with open_mover() as mover, open_line(mover) as line:
        for _ in range(20):
            line.client.socket.send(b"before")
            line.client.socket.send(b"!", socket.MSG_OOB)
            line.client.socket.send(b"after")
            with trio.fail_after(5):
                assert (await read_exactly(line.server, 11)) == b"beforeafter"


async def test_an_end_that_comes_with_the_last_bytes_is_seen() -> None:
    for _ in range(50):
        async with open_mover() as mover, open_line(mover) as line:
            line.client.socket.send(b"last words")
            line.client.socket.shutdown(socket.SHUT_WR)
            with trio.fail_after(5):
                assert await line.server.receive_some() == b"last words"
                assert await line.server.receive_some() == b""


async def test_a_reset_ends_both_directions() -> None:
    async with open_mover() as mover, open_line(mover) as line:
        await trio.testing.wait_all_tasks_blocked()
        line.client.abort()
        await line.relay.wait_ended()
        assert line.relay.end is RelayEnd.RESET


async def test_a_reset_after_an_end_of_file_is_noticed() -> None:
    """The client's direction has ended, so nothing reads from it any more: only the error tells."""
    async with open_mover() as mover, open_line(mover) as line:
        await line.client.send_eof()
        assert await line.server.receive_some() == b""
        line.client.abort()
        with trio.fail_after(5):
            assert await line.server.receive_some() == b""
            await line.relay.wait_ended()
        assert line.relay.end is RelayEnd.RESET


async def test_a_cancelled_relay_leaves_its_sockets_free() -> None:
    async with open_mover() as mover:
        with stream_pair() as (client, near), stream_pair() as (far, server):
            for _ in range(3):
                relay = SocketRelay.between(near.socket, far.socket, Workshop(None))
                async with open_background() as nursery:
                    nursery.start_soon(mover.carry, relay)
                    await trio.testing.wait_all_tasks_blocked()
            await client.send_all(b"x")
            async with open_background() as nursery:
                nursery.start_soon(mover.carry, SocketRelay.between(near.socket, far.socket, Workshop(None)))
                assert await server.receive_some() == b"x"


async def test_more_relays_than_one_look_sees() -> None:
    async with open_mover() as mover, AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(open_line(mover)) for _ in range(EVENTS)]
        for line in lines:
            line.client.socket.send(b"x")
            line.server.socket.send(b"y")
        for line in lines:
            assert await line.server.receive_some() == b"x"
            assert await line.client.receive_some() == b"y"


async def test_when_the_mover_ends_its_relays_do() -> None:
    mover = EpollMover()
    with stream_pair() as (_, near), stream_pair() as (far, _):
        relay = SocketRelay.between(near.socket, far.socket, Workshop(None))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mover.carry, relay)
            async with open_background() as running:
                running.start_soon(mover.run)
                await trio.testing.wait_all_tasks_blocked()
        assert relay.end is RelayEnd.RESET


async def test_what_cannot_be_watched_is_reset(tmp_path: Path) -> None:
    """A user has so many watches only; a plain file can never be watched, which shows in the same way."""
    with stream_pair() as (_, near), stream_pair() as (far, _), (tmp_path / "file").open("w") as file:
        relay = SocketRelay.between(near.socket, far.socket, Workshop(None))
        relay.far = file.fileno()
        await EpollMover().carry(relay)
        assert relay.end is RelayEnd.RESET

from __future__ import annotations

import math
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from session_proxy.inbound import departures
from session_proxy.inbound.departures import Departures, ended_by_departure, open_departures
from session_proxy.inbound.epoll_mover import has_epoll
from session_proxy.inbound.http_forwarding import HALF_CLOSED
from session_proxy.outbound.failover import Connected
from session_proxy.outbound.socket_stream import ABORT, PlainSocketStream
from session_proxy.outbound.transport import EarlyBytes
from session_proxy.policy.rules import Decision
from session_proxy.target import Target
from tests.support.doors import FakeDialer, open_door
from tests.support.sockets import LOOPBACK, echo, open_server, read_exactly, stream_pair

WAYS = [pytest.param(True, marks=pytest.mark.skipif(not has_epoll(), reason="no epoll here")), False]

SOCKS5 = b"\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x00\x50"
SOCKS4 = b"\x04\x01\x00\x50\x00\x00\x00\x01\x00example.com\x00"
CONNECT = b"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com\r\n\r\n"
GET = b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n"
LAST = b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"
OLD = b"GET http://example.com/ HTTP/1.0\r\n\r\n"

EXAMPLE = Target("example.com", 80)


@attrs.define(eq=False)
class Telling(FakeDialer):
    """A dialer that tells when it has begun to reach something, and when that has ended."""

    begun: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def connect(self, target: Target, decision: Decision, early: EarlyBytes | None = None) -> Connected:
        self.begun.set()
        try:
            return await super().connect(target, decision, early)
        finally:
            self.ended.set()


def open_files() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


async def forever(departures: Departures, near: PlainSocketStream, *, grace: float) -> None:
    """Wait until *near* is found to have left."""
    with ended_by_departure(departures, near, grace=grace):
        await trio.sleep_forever()


@asynccontextmanager
async def waiting(epoll: bool, *, grace: float = 0.0) -> AsyncGenerator[PlainSocketStream]:
    """Yield a client that is being waited for; behind the block it must be noticed that it has left."""
    with stream_pair() as (client, near), trio.fail_after(20):
        async with open_departures(epoll=epoll) as watch, trio.open_nursery() as nursery:

            async def wait() -> None:
                await forever(watch, near, grace=grace)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            yield client


@asynccontextmanager
async def not_noticed(epoll: bool, *, grace: float = 0.0) -> AsyncGenerator[PlainSocketStream]:
    """Yield a client whose conduct in the block must not be taken for a departure."""
    with stream_pair() as (client, near):
        async with open_departures(epoll=epoll) as watch:
            with ended_by_departure(watch, near, grace=grace):
                yield client
                # Longer than it takes the slower way to look.
                await trio.sleep(3 * departures.PAUSE)
                return
    pytest.fail("it was taken for a departure")


@pytest.mark.parametrize("epoll", WAYS)
@pytest.mark.parametrize("leave", [PlainSocketStream.close, PlainSocketStream.abort])
async def test_who_leaves_is_not_waited_for(
    epoll: bool, leave: Callable[[PlainSocketStream], None], autojump_clock: trio.testing.MockClock
) -> None:
    async with waiting(epoll) as client:
        leave(client)


@pytest.mark.parametrize("epoll", WAYS)
async def test_who_has_left_before_is_noticed(epoll: bool, autojump_clock: trio.testing.MockClock) -> None:
    with stream_pair() as (client, near), trio.fail_after(5):
        client.close()
        async with open_departures(epoll=epoll) as watch:
            await forever(watch, near, grace=0.0)


@pytest.mark.parametrize("epoll", WAYS)
async def test_an_end_of_file_behind_bytes_is_no_departure(
    epoll: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """It has said what it wants to know, and waits for the answer; not one byte of it is taken."""
    with stream_pair() as (client, near):
        async with open_departures(epoll=epoll) as watch:
            with trio.move_on_after(3 * departures.PAUSE) as limit:
                await client.send_all(b"early")
                await client.send_eof()
                await forever(watch, near, grace=0.0)
            assert limit.cancelled_caught
            assert near.receive_nowait(10) == b"early"
            assert near.receive_nowait(10) == b""


@pytest.mark.parametrize("epoll", WAYS)
async def test_who_has_said_all_may_end_its_side(epoll: bool, autojump_clock: trio.testing.MockClock) -> None:
    async with not_noticed(epoll, grace=math.inf) as client:
        await client.send_eof()


@pytest.mark.parametrize("epoll", WAYS)
async def test_an_end_of_file_may_be_a_departure_later(
    epoll: bool, autojump_clock: trio.testing.MockClock
) -> None:
    begin = trio.current_time()
    async with waiting(epoll, grace=5.0) as client:
        await client.send_eof()
    assert trio.current_time() - begin == pytest.approx(5.0, abs=departures.PAUSE)


@pytest.mark.parametrize("epoll", WAYS)
async def test_who_sends_early_bytes_is_there(epoll: bool, autojump_clock: trio.testing.MockClock) -> None:
    async with not_noticed(epoll) as client:
        await client.send_all(b"early")


@pytest.mark.parametrize("epoll", WAYS)
async def test_a_reset_is_a_departure_of_who_may_finish(
    epoll: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with waiting(epoll, grace=math.inf) as client:
        client.abort()


@pytest.mark.skipif(not has_epoll(), reason="no epoll here")
async def test_a_reset_behind_bytes_and_an_end_of_file_is_a_departure() -> None:
    async with waiting(epoll=True) as client:
        await client.send_all(b"early")
        await client.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        client.abort()


@pytest.mark.parametrize("epoll", WAYS)
async def test_nobody_is_watched_behind_the_block(
    epoll: bool, autojump_clock: trio.testing.MockClock
) -> None:
    with stream_pair() as (client, near):
        async with open_departures(epoll=epoll) as watch:
            for _ in range(2):
                with ended_by_departure(watch, near, grace=0.0):
                    await trio.lowlevel.checkpoint()
            client.close()
            await trio.sleep(3 * departures.PAUSE)


@pytest.mark.parametrize("request_", [SOCKS5, SOCKS4, CONNECT, GET])
@pytest.mark.parametrize("by_reset", [False, True])
async def test_a_client_of_any_protocol_may_leave(
    request_: bytes, by_reset: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Its connection is ended, counted and told of, and its destination is no longer being reached."""
    dialer = Telling(waits=math.inf)
    async with open_door(dialer) as door:
        client = await door.connect()
        await client.send_all(request_)
        await dialer.begun.wait()
        left = trio.current_time()
        if by_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        await client.aclose()
        closed = await door.events.closed()
        assert (closed.outcome, closed.target, closed.rule) == ("reset", EXAMPLE, "routes[0]")
        assert closed.detail == "the client left before its connection was there"
        assert dialer.ended.is_set()
        half_closed = request_ == GET and not by_reset
        assert trio.current_time() - left == pytest.approx(HALF_CLOSED if half_closed else 0.0)
        door.stop.set()
        await door.done.wait()
        assert trio.current_time() - left < 5


@pytest.mark.parametrize("request_", [LAST, OLD, GET + GET, SOCKS5 + b"early", CONNECT + b"early"])
async def test_a_client_that_has_said_all_gets_its_answer(
    request_: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """As that of ``nc -N``, which ends its side behind its input."""
    async with open_server(echo) as port:
        stream = await trio.open_tcp_stream(LOOPBACK, port)
        async with (
            open_door(FakeDialer({EXAMPLE: stream}, waits=5.0)) as door,
            await door.connect() as client,
        ):
            await client.send_all(request_)
            await client.send_eof()
            assert await read_exactly(client, 2)
            assert (await door.events.closed()).connect_duration == pytest.approx(5.0, abs=0.1)


async def test_the_socket_to_a_destination_that_is_silent_is_closed() -> None:
    """A full queue lets a connection hang, as packets that get lost would."""
    before = open_files()
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        port: int = listener.getsockname()[1]
        dialer = Telling()
        async with open_door(dialer) as door:
            client = await door.connect()
            await client.send_all(b"\x04\x01" + port.to_bytes(2, "big") + bytes((127, 0, 0, 1, 0)))
            await dialer.begun.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert not dialer.ended.is_set()
            await client.aclose()
            assert (await door.events.closed()).outcome == "reset"
    assert open_files() == before

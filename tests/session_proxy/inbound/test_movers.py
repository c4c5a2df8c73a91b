from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from session_proxy.inbound.movers import RelayEnd, SocketRelay, TaskMover
from session_proxy.inbound.pumping import Waiting, Workshop
from session_proxy.outbound.socket_stream import PlainSocketStream
from tests.support.sockets import stream_pair


def relay_between(near: PlainSocketStream, far: PlainSocketStream) -> SocketRelay:
    return SocketRelay.between(near.socket, far.socket, Workshop(None))


async def test_each_direction_ends_on_its_own() -> None:
    with stream_pair() as (client, near), stream_pair() as (far, server):
        relay = relay_between(near, far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(TaskMover().carry, relay)
            await client.send_all(b"question")
            await client.send_eof()
            assert await server.receive_some() == b"question"
            assert await server.receive_some() == b""
            assert relay.end is None
            await server.send_all(b"answer")
            assert await client.receive_some() == b"answer"
            await server.send_eof()
        assert relay.end is RelayEnd.FINISHED
        assert (relay.upward.moved, relay.downward.moved, relay.progress()) == (8, 6, 14)


async def test_a_reset_ends_both_directions() -> None:
    with stream_pair() as (client, near), stream_pair() as (far, _server):
        relay = relay_between(near, far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(TaskMover().carry, relay)
            await trio.testing.wait_all_tasks_blocked()
            client.abort()
        assert relay.end is RelayEnd.RESET
        assert relay.upward.waiting is Waiting.NOTHING


async def test_a_slow_reader_holds_up_the_sender(autojump_clock: trio.testing.MockClock) -> None:
    data = bytes(range(256)) * 65536
    with stream_pair() as (client, near), stream_pair() as (far, server):
        relay = relay_between(near, far)
        far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(TaskMover().carry, relay)
            nursery.start_soon(client.send_all, data)
            while len(received) < len(data):
                received += await server.receive_some(300_000)
            await client.send_eof()
            await server.send_eof()
        assert received == data


async def test_only_the_first_end_counts() -> None:
    with stream_pair() as (_, near), stream_pair() as (far, _):
        relay = relay_between(near, far)
        relay.expire()
        relay.finish(RelayEnd.RESET)
        await relay.wait_ended()
        assert relay.end is RelayEnd.IDLE


async def test_waiting_for_the_end_can_be_cancelled() -> None:
    with stream_pair() as (_, near), stream_pair() as (far, _):
        relay = relay_between(near, far)
        with trio.move_on_after(0) as scope:
            await relay.wait_ended()
        assert scope.cancelled_caught
        relay.finish(RelayEnd.FINISHED)
        await relay.wait_ended()


async def test_the_mover_of_tasks_has_nothing_to_run(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(trio.TooSlowError), trio.fail_after(1):
        await TaskMover().run()

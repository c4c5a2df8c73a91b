from __future__ import annotations

import contextlib
import socket

import pytest
import trio
import trio.testing

from session_proxy.outbound.socket_stream import PlainSocketStream
from tests.support.sockets import stream_pair


async def make_pair() -> tuple[PlainSocketStream, PlainSocketStream]:
    # A Unix pair: its buffers do not grow, so that one which is full stays full.
    first, second = socket.socketpair()
    for sock in (first, second):
        sock.setblocking(False)
    return PlainSocketStream(first), PlainSocketStream(second)


async def make_clogged_pair() -> tuple[PlainSocketStream, PlainSocketStream]:
    pair = await make_pair()
    for stream in pair:
        with contextlib.suppress(BlockingIOError):
            while True:
                stream.socket.send(bytes(65536))
    return pair


async def test_it_keeps_trios_own_rules_for_streams() -> None:
    await trio.testing.check_half_closeable_stream(make_pair, make_clogged_pair)


async def test_what_is_there_is_read_without_waiting() -> None:
    with stream_pair() as (near, far):
        assert near.receive_nowait(10) is None
        await far.send_eagerly(b"hello")
        await trio.lowlevel.wait_readable(near.socket)
        assert near.receive_nowait(3) == b"hel"
        assert await near.receive_eagerly(10) == b"lo"
        await far.send_eof()
        assert await near.receive_eagerly(10) == b""


async def test_a_large_message_is_sent_as_the_peer_reads() -> None:
    data = bytes(range(256)) * 32768
    with stream_pair() as (near, far):
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_eagerly, data)
            while len(received) < len(data):
                received += await far.receive_some()
    assert received == data


async def test_abort_shows_as_a_reset() -> None:
    with stream_pair() as (near, far):
        near.abort()
        near.abort()
        with pytest.raises(trio.BrokenResourceError, match="the connection broke"):
            await far.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            near.receive_nowait(1)


async def test_sending_on_a_broken_connection_says_so() -> None:
    with stream_pair() as (near, far):
        far.abort()
        await trio.lowlevel.wait_readable(near.socket)
        with pytest.raises(trio.BrokenResourceError):
            await near.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await near.send_eof()


async def test_closing_wakes_who_waits() -> None:
    with stream_pair() as (near, _):
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await near.receive_some()

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            near.close()


async def test_closing_the_socket_underneath_counts_as_closing() -> None:
    with stream_pair() as (near, _):
        near.socket.close()
        near.reset_on_close()
        with pytest.raises(trio.ClosedResourceError):
            await near.send_all(b"x")


async def test_eof_twice_is_eof_once() -> None:
    with stream_pair() as (near, far):
        await near.send_eof()
        await near.send_eof()
        assert await far.receive_some() == b""
        assert near.socket.family == socket.AF_INET

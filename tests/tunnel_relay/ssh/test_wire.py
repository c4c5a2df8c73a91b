from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tunnel_relay.errors import SshDisconnectedError
from tunnel_relay.ssh.wire import SocketWire, Wire, open_wire

Make = Callable[[], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]]


async def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    near, far = trio.socket.socketpair()
    await trio.lowlevel.checkpoint()
    return trio.SocketStream(near), trio.SocketStream(far)


async def stream_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    await trio.lowlevel.checkpoint()
    return trio.testing.memory_stream_pair()


@pytest.mark.parametrize("make", [socket_pair, stream_pair])
async def test_bytes_go_both_ways_and_end(make: Make) -> None:
    near, far = await make()
    wire = open_wire(near)
    async with near, far:
        data = bytes(range(256)) * 8000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.write_all, memoryview(data))
            received = b""
            while len(received) < len(data):
                received += await far.receive_some(100_000)
        assert received == data
        await far.send_all(b"hello")
        buffer = bytearray(100)
        assert await wire.read_into(memoryview(buffer)) == 5
        assert buffer[:5] == b"hello"
        await far.aclose()
        assert await wire.read_into(memoryview(buffer)) == 0


@pytest.mark.parametrize("make", [socket_pair, stream_pair])
async def test_a_broken_stream_is_a_disconnection(make: Make) -> None:
    near, far = await make()
    await far.aclose()
    async with near:
        with pytest.raises(SshDisconnectedError, match="below SSH broke"):
            await open_wire(near).write_all(memoryview(bytes(100)))


async def test_a_closed_stream_is_a_disconnection() -> None:
    for near, far in (await socket_pair(), await stream_pair()):
        await near.aclose()
        with pytest.raises(SshDisconnectedError):
            await open_wire(near).read_into(memoryview(bytearray(10)))
        await far.aclose()


async def test_a_socket_is_written_at_once_as_far_as_it_goes() -> None:
    near, far = await socket_pair()
    async with near, far:
        wire = open_wire(near)
        assert isinstance(wire, SocketWire)
        assert wire.write_now(memoryview(b"now")) == 3
        assert await far.receive_some() == b"now"
        assert 0 < wire.write_now(memoryview(bytes(50_000_000))) < 50_000_000
        assert wire.write_now(memoryview(b"full")) == 0


async def test_other_streams_are_never_written_at_once() -> None:
    near, _ = await stream_pair()
    wire = open_wire(near)
    assert type(wire) is Wire
    assert wire.write_now(memoryview(b"later")) == 0

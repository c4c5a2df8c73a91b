from __future__ import annotations

import os
import socket

import pytest
import trio
import trio.testing

from tests.support.ssh_peer import SshPeer, open_pair
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import uint32
from tunnel_relay.ssh.channel import SshChannel
from tunnel_relay.ssh.session import SshSession
from tunnel_relay.ssh.settings import SshSettings


async def open_channel(session: SshSession, peer: SshPeer) -> SshChannel:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.accept_channel)
        return await session.open_direct_tcpip("h", 1)
    raise AssertionError


async def test_a_window_opens_only_for_what_was_taken() -> None:
    async with open_pair(settings=SshSettings(window=1000)) as (session, peer):
        channel = await open_channel(session, peer)
        await peer.send_data(0, bytes(1000))
        await trio.testing.wait_all_tasks_blocked()
        assert channel.receiving.waiting == 1000
        assert len(await channel.receive_some(100)) == 100
        assert len(await channel.receive_some(200)) == 200
        fields = await peer.expect(number.CHANNEL_WINDOW_ADJUST)
        assert (fields.uint32(), fields.uint32()) == (100, 300)


async def test_sizes_are_checked_before_anything_waits() -> None:
    async with open_pair() as (session, peer):
        channel = await open_channel(session, peer)
        for size in (0, -1):
            with pytest.raises(ValueError, match="at least 1"):
                await channel.receive_some(size)


@pytest.mark.parametrize("buffer", [4096, 1 << 20])
async def test_everything_is_poured_into_a_socket(buffer: int) -> None:
    """Also where the socket is full every now and then."""
    data = os.urandom(1 << 20)
    near, far = socket.socketpair()
    moved: list[int] = []
    received = bytearray()
    with near, far:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        near.setblocking(False)
        sink = trio.SocketStream(trio.socket.from_stdlib_socket(far.dup()))
        async with open_pair(settings=SshSettings(window=200_000)) as (session, peer), sink:
            channel = await open_channel(session, peer)

            async def flow() -> None:
                left, credit = memoryview(data), 200_000
                while left:
                    while credit < 20_000:
                        fields = await peer.expect(number.CHANNEL_WINDOW_ADJUST)
                        fields.uint32()
                        credit += fields.uint32()
                    await peer.send_data(0, bytes(left[:20_000]))
                    credit -= len(left[:20_000])
                    left = left[20_000:]
                await peer.send(bytes([number.CHANNEL_EOF]) + uint32(0))

            async def drain() -> None:
                while len(received) < len(data):
                    received.extend(await sink.receive_some(30_000))

            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(flow)
                    nursery.start_soon(drain)
                    await channel.pour(near, moved.append)
    assert received == data
    assert sum(moved) == len(data)


async def test_a_sink_that_breaks_ends_the_pouring() -> None:
    near, far = socket.socketpair()
    with near:
        near.setblocking(False)
        async with open_pair() as (session, peer), trio.open_nursery() as nursery:
            channel = await open_channel(session, peer)

            async def pour() -> None:
                with pytest.raises(trio.BrokenResourceError, match="socket broke"):
                    await channel.pour(near, lambda _: None)

            nursery.start_soon(pour)
            await trio.testing.wait_all_tasks_blocked()
            far.close()
            await peer.send_data(0, b"nobody is there")


async def test_pouring_ends_with_the_session_after_what_arrived() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        async with open_pair() as (session, peer), trio.open_nursery() as nursery:
            channel = await open_channel(session, peer)

            async def pour() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await channel.pour(near, lambda _: None)

            nursery.start_soon(pour)
            await peer.send_data(0, b"last")
            await peer.stream.aclose()
        assert far.recv(10) == b"last"


async def test_after_a_cancelled_pour_one_may_receive(autojump_clock: trio.testing.MockClock) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        async with open_pair() as (session, peer):
            channel = await open_channel(session, peer)
            with trio.move_on_after(0.02):
                await channel.pour(near, lambda _: None)
            await peer.send_data(0, b"mine")
            assert await channel.receive_some() == b"mine"

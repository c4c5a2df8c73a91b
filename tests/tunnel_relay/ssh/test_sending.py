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


async def open_channel(
    session: SshSession, peer: SshPeer, *, window: int = 1 << 20, most: int = 32768
) -> SshChannel:
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            await peer.accept_channel(window=window, most=most)

        nursery.start_soon(accept)
        return await session.open_direct_tcpip("h", 1)
    raise AssertionError


async def collect(peer: SshPeer, size: int, *, credit: int = 0) -> bytes:
    """Receive *size* bytes of channel data; after each message take *credit* bytes more."""
    data = b""
    while len(data) < size:
        message = await peer.message()
        assert message[0] == number.CHANNEL_DATA
        data += message[9:]
        if credit:
            await peer.send(bytes([number.CHANNEL_WINDOW_ADJUST]) + uint32(0) + uint32(credit))
    return data


async def test_a_shut_window_holds_the_sender() -> None:
    async with open_pair() as (session, peer):
        channel = await open_channel(session, peer, window=1000, most=300)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send_all, bytes(2500))
            assert len(await collect(peer, 1000)) == 1000
            await trio.testing.wait_all_tasks_blocked()
            assert session.queued == 1500
            await peer.send(bytes([number.CHANNEL_WINDOW_ADJUST]) + uint32(0) + uint32(1500))
            assert len(await collect(peer, 1500)) == 1500
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.wait_send_all_might_not_block)
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            await peer.send(bytes([number.CHANNEL_WINDOW_ADJUST]) + uint32(0) + uint32(1))


async def test_one_task_sends_at_a_time() -> None:
    async with open_pair() as (session, peer):
        channel = await open_channel(session, peer, window=10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send_all, bytes(100))
            await trio.testing.wait_all_tasks_blocked()
            for busy in (channel.send_eof, channel.wait_send_all_might_not_block):
                with pytest.raises(trio.BusyResourceError):
                    await busy()
            nursery.cancel_scope.cancel()
        assert session.queued == 0


@pytest.mark.parametrize(("window", "credit"), [(1 << 22, 0), (5000, 40_000), (100, 33_000)])
async def test_a_socket_is_soaked_up_to_its_end(window: int, credit: int) -> None:
    data = os.urandom(600_000)
    near, far = socket.socketpair()
    moved: list[int] = []
    with near, far:
        near.setblocking(False)
        source = trio.SocketStream(trio.socket.from_stdlib_socket(far.dup()))
        async with open_pair() as (session, peer), source:
            channel = await open_channel(session, peer, window=window)

            async def feed() -> None:
                await source.send_all(data)
                await source.send_eof()

            async def soak() -> None:
                await channel.soak(near, moved.append)
                await channel.send_eof()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed)
                nursery.start_soon(soak)
                assert await collect(peer, len(data), credit=credit) == data
            assert sum(moved) == len(data)
            await peer.expect(number.CHANNEL_EOF)


async def test_a_socket_that_breaks_is_told_from_its_end() -> None:
    near, far = socket.socketpair()
    async with open_pair() as (session, peer):
        channel = await open_channel(session, peer)
        near.setblocking(False)
        near.close()
        with pytest.raises(trio.BrokenResourceError, match="socket broke"):
            await channel.soak(near, lambda _: None)
    far.close()

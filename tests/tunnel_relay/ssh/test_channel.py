from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.support.ssh_peer import SshPeer, open_pair
from tunnel_relay.errors import SshDisconnectedError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import uint32
from tunnel_relay.ssh.channel import SshChannel
from tunnel_relay.ssh.session import SshSession
from tunnel_relay.ssh.settings import SshSettings


async def open_channel(
    session: SshSession, peer: SshPeer, *, window: int = 1 << 20, most: int = 32768
) -> SshChannel:
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            await peer.accept_channel(window=window, most=most)

        nursery.start_soon(accept)
        return await session.open_direct_tcpip("h", 1)
    raise AssertionError


async def test_closing_says_the_end_and_the_close() -> None:
    async with open_pair() as (session, peer):
        channel = await open_channel(session, peer)
        await channel.aclose()
        await channel.aclose()
        assert (await peer.expect(number.CHANNEL_EOF)).uint32() == 100
        assert (await peer.expect(number.CHANNEL_CLOSE)).uint32() == 100


async def test_the_end_is_sent_once() -> None:
    async with open_pair() as (session, peer):
        channel = await open_channel(session, peer)
        await channel.send_eof()
        await channel.send_eof()
        await peer.expect(number.CHANNEL_EOF)
        with pytest.raises(trio.ClosedResourceError):
            await channel.send_all(b"x")
        await channel.aclose()
        await peer.expect(number.CHANNEL_CLOSE)


async def test_a_close_by_the_peer_ends_both_directions_after_the_data() -> None:
    async with open_pair() as (session, peer):
        channel = await open_channel(session, peer)
        await peer.send_data(0, b"last words")
        await peer.send(bytes([number.CHANNEL_CLOSE]) + uint32(0))
        await peer.expect(number.CHANNEL_CLOSE)
        assert await channel.receive_some() == b"last words"
        assert await channel.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await channel.send_all(b"x")
        assert session.channels == 0
        await channel.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await channel.receive_some()


async def test_what_arrives_after_our_close_is_dropped() -> None:
    async with open_pair() as (session, peer):
        channel = await open_channel(session, peer)
        await channel.aclose()
        await peer.send_data(0, b"late")
        await peer.send(bytes([number.CHANNEL_WINDOW_ADJUST]) + uint32(0) + uint32(1))
        await peer.send(bytes([number.CHANNEL_EOF]) + uint32(0))
        await peer.send(bytes([number.CHANNEL_CLOSE]) + uint32(0))
        await trio.testing.wait_all_tasks_blocked()
        assert not session._connection.channels
        assert session.close_reason is None


async def test_an_abandoned_channel_is_closed_as_soon_as_it_is_open() -> None:
    async with open_pair() as (session, peer):
        with trio.move_on_after(0):
            await session.open_direct_tcpip("h", 1)
        await peer.accept_channel()
        await peer.expect(number.CHANNEL_EOF)
        await peer.expect(number.CHANNEL_CLOSE)


async def test_an_open_ends_with_the_session() -> None:
    async with open_pair() as (session, peer), trio.open_nursery() as nursery:

        async def attempt() -> None:
            with pytest.raises(SshDisconnectedError):
                await session.open_direct_tcpip("h", 1)

        nursery.start_soon(attempt)
        await peer.expect(number.CHANNEL_OPEN)
        await peer.stream.aclose()


async def test_closing_wakes_whoever_waits() -> None:
    async with open_pair(settings=SshSettings()) as (session, peer):
        channel = await open_channel(session, peer, window=10)

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await channel.receive_some()

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await channel.send_all(bytes(100))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            await channel.aclose()


async def test_a_server_that_takes_no_data_is_refused() -> None:
    async with open_pair() as (session, peer), trio.open_nursery() as nursery:

        async def attempt() -> None:
            with pytest.raises(SshDisconnectedError, match="no data"):
                await session.open_direct_tcpip("h", 1)

        nursery.start_soon(attempt)
        await peer.accept_channel(most=0)

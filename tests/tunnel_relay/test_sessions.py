"""Streams over links that come and go, in virtual time; the links are WebSockets over memory."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from tests.support.live_sessions import open_couple
from tests.support.websockets import open_websocket_pair
from tunnel_relay.errors import LinkLostError
from tunnel_relay.link import Link
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.relay_stream import RelayStream, StreamResetError


async def read_all(stream: RelayStream) -> bytes:
    """Return everything until the end."""
    read = bytearray()
    while piece := await stream.receive_some():
        read += piece
    return bytes(read)


async def send_whole(stream: RelayStream, data: bytes) -> None:
    """Send *data*, and the end."""
    await stream.send_all(data)
    await stream.send_eof()


async def test_bytes_outlive_their_links(autojump_clock: MockClock) -> None:
    """A megabyte each way over twenty streams, while the link is cut again and again."""
    rng = random.Random(1)
    data = [rng.randbytes(50_000 + 10_000 * number) for number in range(20)]
    narrow = SessionSettings(window=10_000, kept=50_000)
    async with open_couple(narrow) as couple, trio.open_nursery() as nursery:
        arrived: list[bool] = []

        async def expect(stream: RelayStream, content: bytes) -> None:
            arrived.append(await read_all(stream) == content)

        async with trio.open_nursery() as transfers:
            for content in data:
                near, far = await couple.stream()
                transfers.start_soon(send_whole, near, content)
                transfers.start_soon(send_whole, far, content[::-1])
                transfers.start_soon(expect, far, content)
                transfers.start_soon(expect, near, content[::-1])

            async def weather() -> None:
                while True:
                    for _ in range(rng.randrange(60)):
                        await trio.lowlevel.checkpoint()
                    couple.cut()
                    await trio.sleep(rng.random())
                    await couple.connect()

            nursery.start_soon(weather)
        assert couple.labels > 10
        assert arrived == [True] * 40
        nursery.cancel_scope.cancel()


async def test_a_session_without_a_link_for_too_long_ends_with_its_streams(autojump_clock: MockClock) -> None:
    async with open_couple() as couple:
        near, far = await couple.stream()
        couple.cut()
        began = trio.current_time()
        for stream in (near, far):
            with pytest.raises(StreamResetError, match="no connection for 120 s") as caught:
                await stream.receive_some()
            assert caught.value.reason is Reason.SESSION_LOST
        assert trio.current_time() - began == pytest.approx(120)
        with pytest.raises(StreamResetError, match="no connection for 120 s"):
            couple.client.open_stream(b"ssh")


async def test_what_is_kept_for_the_peer_is_bounded(autojump_clock: MockClock) -> None:
    """Without a link, writers wait."""
    async with open_couple() as couple:
        streams = [await couple.stream() for _ in range(6)]
        couple.cut()
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                for near, _ in streams:
                    nursery.start_soon(near.send_all, bytes(100_000))
        assert couple.client.session.kept <= 400_000 + 1000


async def test_a_dead_link_is_noticed(autojump_clock: MockClock) -> None:
    """The other end keeps the connection, and says nothing."""
    async with open_websocket_pair() as (near, _far):
        began = trio.current_time()
        with pytest.raises(LinkLostError, match="nothing was heard for"):
            await Link(near, lambda _frame: None).run()
        assert trio.current_time() - began <= 46


async def test_a_link_with_nothing_to_carry_stays(autojump_clock: MockClock) -> None:
    async with open_couple() as couple:
        near, far = await couple.stream()
        await trio.sleep(3600)
        await near.send_all(b"still there")
        assert await far.receive_some() == b"still there"


async def test_who_sends_what_is_no_frame_is_left(autojump_clock: MockClock) -> None:
    for text in (True, False):
        async with open_websocket_pair() as (near, far):
            await (far.send_text("hello") if text else far.send_binary(b"hello"))
            with pytest.raises(LinkLostError, match=r"sent text|header is cut off"):
                await Link(near, lambda _frame: None).run()


async def test_a_peer_that_acknowledges_nothing_loses_the_session_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    async with open_couple(SessionSettings(frames=100)) as couple:
        near, far = await couple.stream()
        couple.cut()
        with suppress(StreamResetError):
            for _ in range(101):
                couple.agent.open_stream(b"back")
        assert couple.agent.session.lost == "the peer has not acknowledged 100 frames"
        with pytest.raises(StreamResetError, match="has not acknowledged 100 frames"):
            await far.receive_some()
        await near.aclose()

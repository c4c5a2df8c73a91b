"""One WebSocket with frames; `test_joined.py` has it between ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.websockets import open_websocket_pair
from tunnel_relay.background import open_background
from tunnel_relay.errors import LinkLostError, WebSocketClosedError
from tunnel_relay.link import PROTOCOL_ERROR, Link, LinkSettings
from tunnel_relay.protocol.frames import Frame, FrameType, decode, encode
from tunnel_relay.websocket import NO_CLOSE_FRAME, WebSocket


class Ended:
    """How a link ended."""

    why: LinkLostError | None = None


@asynccontextmanager
async def open_link(
    heard: list[Frame], settings: LinkSettings | None = None
) -> AsyncGenerator[tuple[Link, WebSocket, Ended]]:
    """Run a link, and yield it, the other end of its WebSocket, and how it ends."""
    ended = Ended()
    async with open_websocket_pair() as (near, far), open_background() as nursery:
        link = Link(near, heard.append, settings or LinkSettings())

        async def run() -> None:
            try:
                await link.run()
            except LinkLostError as exc:
                ended.why = exc

        nursery.start_soon(run)
        yield link, far, ended
        nursery.cancel_scope.cancel()


async def receive_all(websocket: WebSocket) -> None:
    while True:
        await websocket.receive()


async def frames(websocket: WebSocket) -> list[Frame]:
    message = await websocket.receive()
    assert isinstance(message, bytes)
    return list(decode(message))


async def test_a_ping_is_answered_and_other_frames_are_heeded(autojump_clock: MockClock) -> None:
    heard: list[Frame] = []
    async with open_link(heard) as (_, far, _):
        ack = Frame(FrameType.ACK, 1, number=7)
        await far.send_binary(encode([Frame(FrameType.PING), ack]))
        assert [frame.type for frame in await frames(far)] == [FrameType.PONG]
        assert [(frame.type, frame.number) for frame in heard] == [(FrameType.ACK, 7)]


@pytest.mark.parametrize("spoke_at", [0, 1, 14, 15, 16, 29, 44])
async def test_a_silent_end_is_noticed(autojump_clock: MockClock, spoke_at: float) -> None:
    """Wherever its last word falls between two signs of life."""
    async with open_link([], LinkSettings(heartbeat=30, silence=45)) as (_, far, ended):
        await trio.sleep(spoke_at)
        await far.send_binary(encode([Frame(FrameType.PONG)]))
        began = trio.current_time()
        while ended.why is None:  # noqa: ASYNC110  # virtual time
            await trio.sleep(1)
        assert ended.why is not None
        assert str(ended.why).startswith("nothing was heard for ")
        assert 45 <= trio.current_time() - began <= 46
        # Without a farewell, which would be waited for in vain.
        with pytest.raises(WebSocketClosedError) as caught, trio.fail_after(5):
            await receive_all(far)
        assert caught.value.code == NO_CLOSE_FRAME


async def test_an_end_that_says_nothing_is_asked(autojump_clock: MockClock) -> None:
    async with open_link([], LinkSettings(heartbeat=30, silence=45)) as (_, far, _ended):
        began = trio.current_time()
        assert [frame.type for frame in await frames(far)] == [FrameType.PING]
        assert trio.current_time() - began <= 30


async def test_nonsense_ends_it(autojump_clock: MockClock) -> None:
    async with open_link([]) as (_, far, ended):
        await far.send_binary(b"nonsense")
        with pytest.raises(WebSocketClosedError) as caught:
            await far.receive()
        assert caught.value.code == PROTOCOL_ERROR
        await trio.testing.wait_all_tasks_blocked()
        assert "broke the protocol" in str(ended.why)


async def test_nothing_is_heard_while_it_is_held(autojump_clock: MockClock) -> None:
    """Nor does the silence count, however long it lasts; what is sent goes on."""
    heard: list[Frame] = []
    async with open_link(heard, LinkSettings(heartbeat=3, silence=5)) as (link, far, ended):
        link.hold(60)
        link.hold(1)
        await far.send_binary(encode([Frame(FrameType.ACK, 1, number=7)]))
        link.send(Frame(FrameType.ACK, 2, number=8))
        assert [frame.number for frame in await frames(far)] == [8]
        await trio.sleep(59)
        assert heard == []
        await trio.sleep(2)
        assert [frame.number for frame in heard] == [7]
        assert ended.why is None


async def test_all_that_there_is_is_sent(autojump_clock: MockClock) -> None:
    async with open_link([]) as (link, far, _):
        link.send(Frame(FrameType.ACK, 1, number=7))
        await link.wait_sent()
        assert [frame.number for frame in await frames(far)] == [7]


async def test_the_time_to_an_answer_is_known(autojump_clock: MockClock) -> None:
    async with open_link([]) as (link, far, _):
        await far.send_binary(encode([Frame(FrameType.PONG)]))
        await trio.sleep(1)
        assert link.round_trip is None
        link.ping()
        assert [frame.type for frame in await frames(far)] == [FrameType.PING]
        await trio.sleep(2)
        await far.send_binary(encode([Frame(FrameType.PONG)]))
        await trio.sleep(1)
        assert link.round_trip == 2

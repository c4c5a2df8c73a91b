"""One WebSocket with frames; `test_joined.py` has it between ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.websockets import open_websocket_pair
from tunnel_relay.background import open_background
from tunnel_relay.errors import LinkLostError, WebSocketClosedError
from tunnel_relay.link import (
    FRAMES,
    GOING_AWAY,
    LONGEST,
    MESSAGE,
    MOST_OWN,
    MOST_PING,
    PROTOCOL_ERROR,
    QUICK,
    Link,
    LinkSettings,
)
from tunnel_relay.protocol.frames import MAX_PAYLOAD, Frame, FrameType, decode, encode
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


async def test_who_asks_for_a_sign_of_life_hears_when_it_comes(autojump_clock: MockClock) -> None:
    async with open_link([]) as (link, far, _):
        answer = link.ping()
        assert [frame.type for frame in await frames(far)] == [FrameType.PING]
        await trio.testing.wait_all_tasks_blocked()
        assert not answer.is_set()
        await far.send_binary(encode([Frame(FrameType.PONG)]))
        await answer.wait()
        assert not link.ping().is_set()


@pytest.mark.parametrize("spoke_at", [0, 1, 14, 15, 16, 29, 39])
async def test_a_silent_end_is_noticed(autojump_clock: MockClock, spoke_at: float) -> None:
    """Wherever its last word falls between two signs of life."""
    async with open_link([]) as (_, far, ended):
        await trio.sleep(spoke_at)
        await far.send_binary(encode([Frame(FrameType.PONG)]))
        began = trio.current_time()
        while ended.why is None:  # noqa: ASYNC110  # virtual time
            await trio.sleep(1)
        assert ended.why is not None
        assert str(ended.why).startswith("nothing was heard for ")
        assert 40 <= trio.current_time() - began <= 41
        # Without a farewell, which would be waited for in vain.
        with pytest.raises(WebSocketClosedError) as caught, trio.fail_after(5):
            await receive_all(far)
        assert caught.value.code == NO_CLOSE_FRAME


async def test_an_end_that_says_nothing_is_asked(autojump_clock: MockClock) -> None:
    async with open_link([]) as (_, far, _ended):
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


@attrs.define(eq=False)
class Stalled:
    """A WebSocket whose other end says *message* again and again, and reads nothing."""

    message: bytes
    given: int = 0
    abandoned: bool = False

    async def receive_many(self) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        self.given += 1
        return [self.message]

    async def send_many(self, messages: list[bytes]) -> None:
        await trio.sleep_forever()

    async def abandon(self) -> None:
        self.abandoned = True


@pytest.mark.parametrize(
    "frame", [Frame(FrameType.PING, payload=bytes(MOST_PING)), Frame(FrameType.HELLO, 1)]
)
async def test_who_reads_nothing_of_what_it_asks_for_is_cut_off(frame: Frame) -> None:
    stalled = Stalled(encode([frame] * 100))

    def heed(_: Frame) -> None:
        link.send(Frame(FrameType.GOAWAY, 1, payload=bytes(100)))

    link = Link(cast("WebSocket", stalled), heed)
    with pytest.raises(LinkLostError, match="reads nothing"), trio.fail_after(60):
        await link.run()
    assert stalled.abandoned
    assert stalled.given * 100 * 100 < 3 * MOST_OWN


async def test_a_ping_is_no_way_to_send_much(autojump_clock: MockClock) -> None:
    async with open_link([]) as (_, far, ended):
        await far.send_binary(encode([Frame(FrameType.PING, payload=bytes(MOST_PING))]))
        [pong] = await frames(far)
        assert (pong.type, len(pong.payload)) == (FrameType.PONG, MOST_PING)
        await far.send_binary(encode([Frame(FrameType.PING, payload=bytes(MOST_PING + 1))]))
        with pytest.raises(WebSocketClosedError) as caught:
            await far.receive()
        assert caught.value.code == PROTOCOL_ERROR
        await trio.testing.wait_all_tasks_blocked()
        assert "126 bytes" in str(ended.why)


async def test_what_is_said_at_once_goes_in_messages_of_some_length(autojump_clock: MockClock) -> None:
    """However much it is, where the other end reads it."""
    async with open_link([]) as (link, far, ended):
        sizes = [*[100] * 30_000, MAX_PAYLOAD, 100]
        for number, size in enumerate(sizes, 1):
            link.send(Frame(FrameType.GOAWAY, number, payload=bytes(size)))
        came: list[int] = []
        while len(came) < len(sizes):
            message = await far.receive()
            assert isinstance(message, bytes)
            found = list(decode(message))
            assert len(message) <= MESSAGE or len(found) == 1
            came += [frame.session for frame in found]
        assert came == list(range(1, len(sizes) + 1))
        assert ended.why is None


class Plenty:
    """Always has more to send, and notes how much it was asked for at a time."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def frames_to_send(self, most: int, now: float) -> list[Frame]:
        self.asked.append(most)
        count = -(-most // MAX_PAYLOAD)
        return [Frame(FrameType.DATA, 1, 1, 1, bytes(MAX_PAYLOAD))] * count

    def next_timer(self) -> float | None:
        return None


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [
        (QUICK / 2, [MESSAGE, 2 * MESSAGE, LONGEST, LONGEST, LONGEST]),
        (QUICK * 2, [MESSAGE] * 5),
    ],
)
async def test_messages_are_long_where_they_leave_quickly(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, seconds: float, sizes: list[int]
) -> None:
    async def send_many(_: WebSocket, _messages: Sequence[bytes]) -> None:
        await trio.sleep(seconds)

    async with open_link([]) as (link, _, _):
        monkeypatch.setattr(WebSocket, "send_many", send_many)
        plenty = Plenty()
        link.add(plenty)
        while len(plenty.asked) < len(sizes):  # noqa: ASYNC110  # virtual time
            await trio.sleep(1)
        assert plenty.asked[: len(sizes)] == sizes


async def test_after_a_slow_one_messages_are_short_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = iter((0.0, 0.0, 1.0))

    async def send_many(_: WebSocket, _messages: Sequence[bytes]) -> None:
        await trio.sleep(next(pauses, 0.01))

    async with open_link([]) as (link, _, _):
        monkeypatch.setattr(WebSocket, "send_many", send_many)
        plenty = Plenty()
        link.add(plenty)
        while len(plenty.asked) < 5:  # noqa: ASYNC110  # virtual time
            await trio.sleep(1)
        assert plenty.asked[:5] == [MESSAGE, 2 * MESSAGE, LONGEST, MESSAGE, 2 * MESSAGE]


async def test_a_link_whose_labels_have_run_out_is_closed(autojump_clock: MockClock) -> None:
    async with open_link([]) as (link, far, ended):
        link.send(Frame(FrameType.GOAWAY, 1 << 32))
        with pytest.raises(WebSocketClosedError, match="numbers have run out") as caught:
            await far.receive()
        assert caught.value.code == GOING_AWAY
        await trio.testing.wait_all_tasks_blocked()
        assert str(ended.why).startswith("nothing more can be sent: ")


async def test_others_have_their_turn_in_the_middle_of_a_message(autojump_clock: MockClock) -> None:
    heard: list[Frame] = []
    seen: list[int] = []

    async def look() -> None:
        while True:
            seen.append(len(heard))
            await trio.lowlevel.checkpoint()

    async with open_link(heard) as (_, far, _), open_background() as nursery:
        nursery.start_soon(look)
        await far.send_binary(encode([Frame(FrameType.ACK, 1, number=1)] * FRAMES * 4))
        while len(heard) < FRAMES * 4:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    # Who goes first in a round is a matter of chance.
    assert any(0 < number < FRAMES * 4 for number in seen)

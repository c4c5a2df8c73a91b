"""Streams over links that come and go, in virtual time; the links are WebSockets over memory."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.websockets import open_websocket_pair
from tunnel_relay.background import open_background
from tunnel_relay.errors import LinkLostError
from tunnel_relay.link import Link, LinkSettings
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.sessions import LiveSession, RelayStream, StreamRefusedError, StreamResetError

SETTINGS = SessionSettings(window=100_000, kept=400_000)


@attrs.define(eq=False)
class Couple:
    """A client and an agent; `connect` gives them a link until it is cut."""

    nursery: trio.Nursery
    client: LiveSession
    agent: LiveSession
    incoming: trio.MemoryReceiveChannel[tuple[RelayStream, bytes]]
    labels: int = 0
    link_settings: LinkSettings = attrs.field(factory=LinkSettings)
    cut_scope: trio.CancelScope | None = None

    async def connect(self) -> None:
        """Give both ends a new link."""
        self.cut()
        await self.nursery.start(self._carry)

    def cut(self) -> None:
        """Lose what is on its way."""
        if self.cut_scope is not None:
            self.cut_scope.cancel()
            self.cut_scope = None
            self.client.detach()
            self.agent.detach()

    async def _carry(self, task_status: trio.TaskStatus[None]) -> None:
        self.labels += 1
        label = self.labels
        with trio.CancelScope() as self.cut_scope:
            async with open_websocket_pair() as (near, far), trio.open_nursery() as nursery:
                here = Link(near, self.client.receive, self.link_settings)
                there = Link(far, self.agent.receive, self.link_settings)
                received = self.client.session.received, self.agent.session.received
                self.client.attach(here, label, received[1])
                self.agent.attach(there, label, received[0])

                async def run(link: Link) -> None:
                    with suppress(LinkLostError):
                        await link.run()

                nursery.start_soon(run, here)
                nursery.start_soon(run, there)
                task_status.started()

    async def stream(self) -> tuple[RelayStream, RelayStream]:
        """Return both ends of an open stream."""
        near = self.client.open_stream(b"ssh")
        far, request = await self.incoming.receive()
        assert request == b"ssh"
        far.accept()
        await near.wait_accepted()
        return near, far


@asynccontextmanager
async def open_couple(settings: SessionSettings = SETTINGS) -> AsyncGenerator[Couple]:
    """Connect a client and an agent."""
    send, receive = trio.open_memory_channel[tuple[RelayStream, bytes]](100)

    def opened(stream: RelayStream, request: bytes) -> None:
        send.send_nowait((stream, request))

    client = LiveSession.new(initiator=True, settings=settings, opened=opened)
    agent = LiveSession.new(initiator=False, settings=settings, opened=opened)
    async with open_background() as nursery:
        nursery.start_soon(client.run)
        nursery.start_soon(agent.run)
        couple = Couple(nursery, client, agent, receive)
        await couple.connect()
        yield couple
        nursery.cancel_scope.cancel()


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


async def test_a_stream_is_what_trio_calls_one(autojump_clock: MockClock) -> None:
    async with open_couple() as couple:

        async def pair() -> tuple[RelayStream, RelayStream]:
            return await couple.stream()

        async def clogged() -> tuple[RelayStream, RelayStream]:
            near, far = await couple.stream()
            for end in (near, far):
                with trio.move_on_after(1):
                    while True:
                        await end.send_all(bytes(10_000))
            return near, far

        await trio.testing.check_half_closeable_stream(pair, clogged)


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


async def test_a_refusal_reaches_who_asked(autojump_clock: MockClock) -> None:
    async with open_couple() as couple:
        near = couple.client.open_stream(b"telnet")
        far, _ = await couple.incoming.receive()
        far.refuse(Reason.NO_SUCH_SERVICE, "there is ssh")
        with pytest.raises(StreamRefusedError, match="there is ssh"):
            await near.wait_accepted()


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

"""The far end of sessions, spoken to in frames; `test_joined.py` has it all together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tunnel_relay.background import open_background
from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.far_end import FarEnd
from tunnel_relay.link import Source
from tunnel_relay.protocol.frames import LINK, Frame, FrameType
from tunnel_relay.protocol.greetings import GoAway, Hello, Resume, Welcome, read_go_away, read_welcome, write
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.refusal import write_refusal
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.relay_stream import StreamRefusedError

TOKEN = "0123456789abcdef" * 2
GRANT = b"\0\1\0\0"


@attrs.define(eq=False)
class Wire:
    """A link of which the test is the other end."""

    own: list[Frame] = attrs.field(factory=list[Frame])
    sources: list[Source] = attrs.field(factory=list[Source])

    def send(self, frame: Frame) -> None:
        self.own.append(frame)

    def add(self, source: Source) -> None:
        self.sources.append(source)

    def remove(self, source: Source) -> None:
        self.sources.remove(source)

    def poke(self) -> None:
        pass

    def said(self) -> list[Frame]:
        """Return what has been sent since the last time, acknowledgements aside."""
        frames, self.own = self.own, []
        for source in self.sources:
            frames += source.frames_to_send(1 << 20, trio.current_time())
        return [frame for frame in frames if frame.type is not FrameType.ACK]


@attrs.define(eq=False)
class World:
    """A far end on a wire."""

    far: FarEnd
    wire: Wire
    asked: list[str]

    def hello(self, label: int = 1, fence: int = 1, token: str = TOKEN) -> None:
        self.far.heed(
            Frame(FrameType.HELLO, label, payload=write(Hello(agent="nas", token=token, fence=fence)))
        )

    def resume(self, label: int, fence: int, received: int = 0) -> None:
        resume = Resume(agent="nas", instance="one", token=TOKEN, fence=fence, received=received)
        self.far.heed(Frame(FrameType.RESUME, label, payload=write(resume)))

    async def said(self) -> list[Frame]:
        await trio.testing.wait_all_tasks_blocked()
        return self.wire.said()


@attrs.define(eq=False)
class Breaking(trio.abc.ReceiveStream):
    """A stream that breaks after the first piece."""

    stream: trio.abc.ReceiveStream
    taken: bool = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.taken:
            raise trio.BrokenResourceError("it broke")
        self.taken = True
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


@asynccontextmanager
async def open_world() -> AsyncGenerator[World]:
    """Run a far end that connects to "here" and "broken", never to "nowhere", and to nothing else."""
    asked: list[str] = []

    async def connect(name: str) -> trio.abc.HalfCloseableStream:
        asked.append(name)
        if name == "nowhere":
            await trio.sleep_forever()
        if name not in ("here", "broken"):
            raise StreamRefusedError(Reason.UNREACHABLE, f"there is no {name}")
        near, far = trio.testing.memory_stream_pair()
        await far.send_all(b"welcome")
        if name == "here":
            await far.send_eof()
            return near
        return trio.StapledStream(near.send_stream, Breaking(near.receive_stream))

    async with open_background() as nursery:
        far = FarEnd(nursery, connect, "one", SessionSettings(grace=100, sessions=3), record="two")
        wire = Wire()
        far.attach(wire)
        yield World(far, wire, asked)
        nursery.cancel_scope.cancel()


def kinds(frames: list[Frame]) -> list[FrameType]:
    return [frame.type for frame in frames]


async def test_a_stream_is_connected() -> None:
    async with open_world() as world:
        world.hello()
        [frame] = await world.said()
        assert (frame.type, frame.session) == (FrameType.WELCOME, 1)
        assert read_welcome(frame.payload) == Welcome(instance="one", received=0, record="two")
        world.far.heed(Frame(FrameType.OPEN, 1, 1, 1, GRANT + b"here"))
        frames = await world.said()
        assert kinds(frames) == [FrameType.OPENED, FrameType.DATA, FrameType.EOF]
        assert bytes(frames[1].payload) == b"welcome"
        assert world.asked == ["here"]


async def test_what_the_relay_refuses_is_refused_in_its_words() -> None:
    async with open_world() as world:
        world.hello()
        await world.said()
        request = GRANT + write_refusal(Reason.LIMIT, "too many")
        world.far.heed(Frame(FrameType.OPEN, 1, 1, 1, request))
        [frame] = await world.said()
        assert frame.type is FrameType.REFUSED
        assert bytes(frame.payload) == bytes((Reason.LIMIT,)) + b"too many"
        assert world.asked == []


@pytest.mark.parametrize(
    ("name", "reason", "detail"),
    [
        ("elsewhere", Reason.UNREACHABLE, b"there is no elsewhere"),
        ("nowhere", Reason.TIMED_OUT, b"nothing came of it in 10 s"),
    ],
)
async def test_why_a_stream_is_refused_is_said(
    autojump_clock: MockClock, name: str, reason: Reason, detail: bytes
) -> None:
    async with open_world() as world:
        world.hello()
        world.far.heed(Frame(FrameType.OPEN, 1, 1, 1, GRANT + name.encode()))
        await trio.sleep(11)
        frame = (await world.said())[-1]
        assert (frame.type, bytes(frame.payload)) == (FrameType.REFUSED, bytes([reason]) + detail)


async def test_a_later_connection_takes_a_session_over() -> None:
    async with open_world() as world:
        world.hello()
        await world.said()
        world.resume(2, 2)
        assert [(frame.type, frame.session) for frame in await world.said()] == [
            (FrameType.GOAWAY, 1),
            (FrameType.WELCOME, 2),
        ]
        world.resume(3, 2)
        [frame] = await world.said()
        assert (frame.session, read_go_away(frame.payload).lost) == (3, True)
        assert world.far.sessions == 1


async def test_a_session_outlives_the_link_until_its_grace_ends(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.hello()
        world.far.detach()
        await trio.sleep(99)
        world.far.attach(world.wire)
        world.resume(7, 2)
        assert kinds(await world.said())[-1] is FrameType.WELCOME
        world.far.detach()
        await trio.sleep(101)
        assert world.far.sessions == 0
        world.far.attach(world.wire)
        world.resume(8, 3)
        [frame] = await world.said()
        assert read_go_away(frame.payload) == GoAway(
            lost=True, detail="the session is not known here (any more)"
        )


async def test_who_breaks_the_rules_hears_that_the_session_is_over() -> None:
    async with open_world() as world:
        world.hello()
        await world.said()
        world.far.heed(Frame(FrameType.DATA, 1, 5, 1, b"?"))
        [frame] = await world.said()
        assert (frame.type, frame.session) == (FrameType.GOAWAY, 1)
        assert read_go_away(frame.payload).lost
        assert world.far.sessions == 0


async def test_a_resumption_that_cannot_be_ends_the_session() -> None:
    async with open_world() as world:
        world.hello()
        await world.said()
        world.resume(1, 2, received=99)
        frames = await world.said()
        assert kinds(frames)[-1] is FrameType.GOAWAY
        assert world.far.sessions == 0


async def test_what_is_said_of_no_session_is_passed_over() -> None:
    async with open_world() as world:
        world.far.heed(Frame(FrameType.DATA, 9, 1, 1, b"?"))
        world.far.heed(Frame(FrameType.GOAWAY, 9, payload=b"?"))
        assert await world.said() == []


async def test_a_relay_s_word_that_the_client_is_gone_detaches(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.hello()
        world.far.heed(Frame(FrameType.GOAWAY, 1, payload=write(GoAway(lost=False, detail="cut"))))
        await trio.sleep(101)
        assert world.far.sessions == 0


async def test_a_link_has_nothing_to_say_of_itself() -> None:
    async with open_world() as world:
        with pytest.raises(RelayProtocolError, match="does not concern a link"):
            world.far.heed(Frame(FrameType.GOAWAY, LINK))


async def test_what_breaks_is_not_taken_for_the_end() -> None:
    async with open_world() as world:
        world.hello()
        world.far.heed(Frame(FrameType.OPEN, 1, 1, 1, GRANT + b"broken"))
        frames = await world.said()
        assert kinds(frames)[-3:] == [FrameType.OPENED, FrameType.DATA, FrameType.RESET]
        assert frames[-1].payload[0] == Reason.BROKEN


async def test_a_client_that_parts_for_good_is_not_waited_for() -> None:
    async with open_world() as world:
        world.hello()
        await world.said()
        world.far.heed(Frame(FrameType.GOAWAY, 1, payload=write(GoAway(lost=True, detail="it is done"))))
        assert await world.said() == []
        assert world.far.sessions == 0


async def test_who_drains_begins_nothing_and_goes_on_with_what_there_is() -> None:
    async with open_world() as world:
        world.hello()
        await world.said()
        world.far.draining = "the agent is being shut down"
        world.far.heed(Frame(FrameType.OPEN, 1, 1, 1, GRANT + b"here"))
        [frame] = await world.said()
        assert frame.type is FrameType.REFUSED
        assert bytes(frame.payload) == bytes([Reason.LIMIT]) + b"the agent is being shut down"
        assert world.asked == []
        other = Hello(agent="nas", token=TOKEN[::-1], fence=1)
        world.far.heed(Frame(FrameType.HELLO, 2, payload=write(other)))
        [frame] = await world.said()
        assert (frame.type, frame.session) == (FrameType.GOAWAY, 2)
        assert read_go_away(frame.payload) == GoAway(lost=False, detail="the agent is being shut down")
        world.resume(3, 2)
        frames = await world.said()
        assert FrameType.WELCOME in kinds(frames)
        assert world.far.sessions == 1


async def test_what_a_server_has_here_goes_on_over_the_link_that_was_left() -> None:
    async with open_world() as world:
        assert world.far.leave() is None, "there is nothing"
        for label in (1, 2):
            world.hello(label, token=f"{label:032}")
            world.far.heed(Frame(FrameType.OPEN, label, 1, 1, GRANT + b"here"))
        first = world.wire
        said = await world.said()
        remains = world.far.leave()
        assert remains is not None
        # What came over it before it was known to be left.
        second = world.wire = Wire()
        world.far.attach(second)
        resume = Resume(agent="nas", instance="one", token=f"{2:032}", fence=2, received=3)
        world.far.heed(Frame(FrameType.RESUME, 1, payload=write(resume)))
        assert kinds(await world.said()) == [FrameType.WELCOME]
        [word] = first.said()
        assert (word.type, word.session) == (FrameType.GOAWAY, 2)
        async with trio.open_nursery() as nursery:
            over = trio.Event()

            async def wait() -> None:
                await remains.wait_over()
                over.set()

            nursery.start_soon(wait)
            # The stream ends, and what it has sent arrives.
            remains.heed(Frame(FrameType.EOF, 1, 1, 2))
            await trio.testing.wait_all_tasks_blocked()
            assert world.far.streams == 1
            assert not over.is_set()
            last = max(frame.number for frame in [*said, *first.said()] if frame.session == 1)
            remains.heed(Frame(FrameType.ACK, 1, number=last))
            await over.wait()
        remains.detach()
        assert first.sources == []
        assert world.far.streams == 1


async def test_who_has_left_hears_nothing_more() -> None:
    async with open_world() as world:
        world.far.detach()
        world.hello()
        assert world.far.sessions == 0


async def test_so_many_sessions_are_kept_and_no_more(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for label in range(1, 5):
            world.hello(label, token=f"{label:032}")
        frames = await world.said()
        assert kinds(frames) == [FrameType.WELCOME] * 3 + [FrameType.GOAWAY]
        assert read_go_away(frames[-1].payload) == GoAway(lost=False, detail="3 sessions are kept already")
        # One that nobody comes back to makes room in the end.
        world.far.heed(Frame(FrameType.GOAWAY, 1, payload=write(GoAway(lost=False, detail="enough"))))
        world.hello(5, fence=2, token=f"{1:032}")
        world.hello(4, token=f"{4:032}")
        assert kinds(await world.said()) == [FrameType.WELCOME, FrameType.GOAWAY]
        world.far.heed(Frame(FrameType.GOAWAY, 5, payload=write(GoAway(lost=False, detail="enough"))))
        await trio.sleep(101)
        world.hello(4, token=f"{4:032}")
        assert kinds(await world.said()) == [FrameType.WELCOME]

"""A client's end of a session, spoken to in frames; `test_joined.py` has it all together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from tunnel_relay.background import open_background
from tunnel_relay.client.reaching import LABEL, PAUSE, Reaching
from tunnel_relay.errors import RelayProtocolError, RequestLostError
from tunnel_relay.link import Source
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.greetings import (
    GoAway,
    Mode,
    Welcome,
    read_go_away,
    read_hello,
    read_resume,
    write,
)
from tunnel_relay.protocol.requests import Request
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.relay_stream import StreamResetError

SETTINGS = SessionSettings(grace=20)


@attrs.define(eq=False)
class Wire:
    """A link that notes what it would carry."""

    sent: list[Frame] = attrs.field(factory=list[Frame])
    sources: list[Source] = attrs.field(factory=list[Source])

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def add(self, source: Source) -> None:
        self.sources.append(source)

    def remove(self, source: Source) -> None:
        if source in self.sources:
            self.sources.remove(source)

    def poke(self) -> None:
        pass

    def taken(self) -> list[Frame]:
        """Return the frames of its sources."""
        return [frame for each in self.sources for frame in each.frames_to_send(1 << 20, trio.current_time())]


@asynccontextmanager
async def reaching(mode: Mode = Mode.END_TO_END) -> AsyncGenerator[Reaching]:
    async with open_background() as nursery:
        yield Reaching(nursery, "nas", SETTINGS, mode)


def welcome(instance: str = "one", received: int = 0) -> Frame:
    return Frame(FrameType.WELCOME, LABEL, payload=write(Welcome(instance=instance, received=received)))


def go_away(detail: str, *, lost: bool) -> Frame:
    return Frame(FrameType.GOAWAY, LABEL, payload=write(GoAway(lost=lost, detail=detail)))


async def test_nobody_is_greeted_before_somebody_wants_something(autojump_clock: MockClock) -> None:
    async with reaching() as it:
        wire = Wire()
        it.attach(wire)
        assert wire.sent == []
        assert not it.wanted
        it.open_stream("ssh")
        assert it.wanted
        [hello] = wire.sent
        assert (read_hello(hello.payload).agent, hello.session) == ("nas", LABEL)


async def test_a_session_goes_on_over_another_link(autojump_clock: MockClock) -> None:
    async with reaching(Mode.RELAY_SSH) as it:
        first, second = Wire(), Wire()
        it.attach(first)
        it.open_stream("host:22")
        changed = it.changed
        it.heed(welcome())
        assert changed.is_set()
        assert it.attached
        assert [frame.type for frame in first.taken()] == [FrameType.OPEN]
        it.attach(second)
        assert not it.attached
        [resume] = second.sent
        said = read_resume(resume.payload)
        assert (said.instance, said.fence, said.received, said.mode) == ("one", 2, 0, Mode.RELAY_SSH)
        it.heed(welcome(received=1))
        assert it.attached
        assert second.taken() == []


async def test_who_is_reached_says_which_record_it_keeps(autojump_clock: MockClock) -> None:
    async with reaching() as it:
        it.attach(Wire())
        it.begin()
        for record in ("one", "another"):
            welcome = Welcome(instance="one", received=0, record=record)
            it.heed(Frame(FrameType.WELCOME, LABEL, payload=write(welcome)))
            reached = await it.wait_ready()
            assert reached.record == record
            it.heed(go_away("the session is not known here", lost=True))
            with pytest.raises(RequestLostError, match="not known here"):
                await reached.ask(Request(id="id", target="db", payload=b""))
            it.begin()


async def test_an_agent_that_is_away_is_asked_for_again(autojump_clock: MockClock) -> None:
    async with reaching() as it:
        wire = Wire()
        it.attach(wire)
        it.open_stream("ssh")
        it.heed(go_away("no agent 'nas' is connected", lost=False))
        assert it.why_not == "no agent 'nas' is connected"
        for fence, pause in enumerate((0.1, 0.2, 0.4, 0.8, PAUSE, PAUSE), 2):
            await trio.sleep(pause * 0.9)
            assert len(wire.sent) == fence - 1
            await trio.sleep(pause * 0.2)
            assert read_hello(wire.sent[-1].payload).fence == fence
            it.heed(go_away("no agent 'nas' is connected", lost=False))
        it.heed(welcome())
        assert it.why_not is None


async def test_nobody_is_greeted_twice(autojump_clock: MockClock) -> None:
    """A relay does not go on with a session at an agent while its client begins anew."""
    async with reaching() as it:
        wire = Wire()
        it.attach(wire)
        it.begin()
        for _ in range(2):
            it.heed(go_away("no agent 'nas' is connected", lost=False))
        await trio.sleep(PAUSE)
        assert len(wire.sent) == 2
        it.heed(go_away("no agent 'nas' is connected", lost=False))
        it.heed(welcome())
        await trio.sleep(PAUSE)
        it.heed(go_away("no agent 'nas' is connected", lost=False))
        it.begin().lose("anew")
        it.begin()
        assert len(wire.sent) == 3
        await trio.sleep(PAUSE)
        assert len(wire.sent) == 3


async def test_a_session_that_is_lost_is_followed_by_another(autojump_clock: MockClock) -> None:
    async with reaching() as it:
        wire = Wire()
        it.attach(wire)
        stream = it.open_stream("ssh")
        it.heed(welcome())
        it.heed(go_away("the session is not known here", lost=True))
        with pytest.raises(StreamResetError, match="not known here"):
            await stream.wait_accepted()
        assert not it.attached
        it.open_stream("ssh")
        assert it.why_not is None
        tokens = {read_hello(frame.payload).token for frame in wire.sent}
        assert len(tokens) == 2


async def test_without_a_link_for_too_long_the_session_is_lost(autojump_clock: MockClock) -> None:
    async with reaching() as it:
        live = it.begin()
        assert "no connection for 20 s" in await live.wait_lost()
        with pytest.raises(RequestLostError):
            await live.wait_attached()


async def test_frames_of_sessions_that_there_are_not_end_the_link() -> None:
    async with reaching() as it:
        it.attach(Wire())
        with pytest.raises(RelayProtocolError, match="session 7"):
            it.heed(Frame(FrameType.ACK, 7))


@pytest.mark.parametrize("welcomed", [False, True])
async def test_who_parts_says_so_though_there_was_no_answer_yet(welcomed: bool) -> None:
    async with reaching() as it:
        wire = Wire()
        it.attach(wire)
        live = it.begin()
        if welcomed:
            it.heed(welcome())
        it.part("that was it")
        assert live.session.lost == "that was it"
        word = wire.sent[-1]
        assert (word.type, word.session) == (FrameType.GOAWAY, LABEL)
        assert read_go_away(word.payload) == GoAway(lost=True, detail="that was it")
        # An answer that has crossed it changes nothing.
        it.heed(welcome())
        assert not it.attached

"""The task between an engine and a path, with an engine that only takes notes."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from awg_obfs.quic.engine import Buffer, EngineEvent, PingAcknowledged, Role, Terminated
from awg_obfs.quic.errors import Cause, ConnectionFailure
from awg_obfs.quic.headers import forgotten_notice
from awg_obfs.quic.settings import QuicSettings
from awg_obfs.quic.transmitter import Transmitter

SHORT = b"\x41" + b"identity" + bytes(20)


@attrs.define(eq=False)
class NotedEngine:
    """What of an engine a transmitter uses; *timer* is due until it was handled."""

    outgoing: list[bytes] = attrs.field(factory=list[bytes])
    timer: float | None = None
    stubborn: bool = False
    calls: list[str] = attrs.field(factory=list[str])
    events: list[EngineEvent] = attrs.field(factory=list[EngineEvent])

    def connect(self, now: float) -> None:
        self.calls.append("connect")

    def receive(self, datagrams: Sequence[Buffer], now: float) -> None:
        self.calls.append(f"receive {len(datagrams)}")

    def datagrams_to_send(self, now: float) -> list[bytes]:
        outgoing, self.outgoing = self.outgoing, []
        return outgoing

    def next_timer(self) -> float | None:
        return self.timer

    def handle_timer(self, now: float) -> None:
        self.calls.append("timer")
        if not self.stubborn:
            self.timer = None

    def take_events(self) -> list[EngineEvent]:
        events, self.events = self.events, []
        return events

    def revive(self, now: float) -> None:
        self.calls.append("revive")


@attrs.define(eq=False)
class Bench:
    """A transmitter at work."""

    engine: NotedEngine
    transmitter: Transmitter
    sent: list[Sequence[bytes]]
    delivered: list[EngineEvent]
    silences: list[bool]


@attrs.define(eq=False)
class NotedPath:
    """A path that keeps what is sent."""

    sent: list[Sequence[bytes]] = attrs.field(factory=list[Sequence[bytes]])
    max_datagram_size: int = 1350
    round_trip: float | None = None

    def send(self, datagrams: Sequence[bytes]) -> None:
        self.sent.append(datagrams)


@asynccontextmanager
async def running(role: Role = Role.CLIENT) -> AsyncGenerator[Bench]:
    """Run a transmitter for the block."""
    engine, path = NotedEngine(), NotedPath()
    delivered: list[EngineEvent] = []
    silences: list[bool] = []
    transmitter = Transmitter(
        role,
        path,
        engine,  # pyright: ignore[reportArgumentType] (what is missing is never called)
        QuicSettings(),
        deliver=delivered.append,
        flushed=lambda: math.inf,
        on_silence=silences.append,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transmitter.run)
        await wait_all_tasks_blocked()
        yield Bench(engine, transmitter, path.sent, delivered, silences)
        transmitter.stop()


async def test_what_several_tasks_cause_leaves_together() -> None:
    async with running() as bench, trio.open_nursery() as nursery:

        async def speak(word: bytes) -> None:
            bench.engine.outgoing.append(word)
            bench.transmitter.poke()

        for word in (SHORT, SHORT + b"1", SHORT + b"2"):
            nursery.start_soon(speak, word)
        await wait_all_tasks_blocked()
        assert [len(flush) for flush in bench.sent] == [3]
        assert bench.engine.calls == ["connect"]


async def test_timers_are_handled_when_they_are_due(autojump_clock: MockClock) -> None:
    async with running() as bench:
        bench.engine.timer = trio.current_time() + 2
        bench.transmitter.poke()
        await trio.sleep(1.9)
        assert "timer" not in bench.engine.calls
        await trio.sleep(0.2)
        assert bench.engine.calls.count("timer") == 1


async def test_a_timer_that_stays_due_does_not_stop_the_clock(autojump_clock: MockClock) -> None:
    """An engine may round its own time otherwise than we do; asking it again at once would go on for ever."""
    async with running() as bench:
        bench.engine.stubborn = True
        bench.engine.timer = trio.current_time() + 1
        bench.transmitter.poke()
        await trio.sleep(1.1)
        assert 1 <= bench.engine.calls.count("timer") <= 110


async def test_silence_is_probed_and_told_and_so_is_its_end(autojump_clock: MockClock) -> None:
    async with running() as bench:
        bench.transmitter.established()
        bench.transmitter.poke()
        await trio.sleep(1.6)
        assert bench.engine.calls.count("revive") == 2
        await trio.sleep(1)
        assert bench.silences == [True]
        assert bench.transmitter.silent
        bench.transmitter.received([SHORT])
        assert bench.silences == [True, False]
        assert bench.engine.calls[-2:] == ["receive 1", "revive"]


async def test_a_server_neither_connects_nor_probes(autojump_clock: MockClock) -> None:
    async with running(Role.SERVER) as bench:
        bench.transmitter.established()
        bench.transmitter.poke()
        await trio.sleep(30)
        assert bench.engine.calls == []


async def test_events_are_delivered_in_order() -> None:
    async with running() as bench:
        bench.engine.events = [PingAcknowledged(1), PingAcknowledged(2)]
        bench.transmitter.received([SHORT])
        assert bench.delivered == [PingAcknowledged(1), PingAcknowledged(2)]


async def test_last_words_leave_and_nothing_after_them() -> None:
    async with running() as bench:
        bench.engine.outgoing = [SHORT]
        bench.transmitter.stop()
        bench.engine.outgoing = [SHORT]
        bench.transmitter.stop()
        bench.transmitter.received([SHORT])
        assert [len(flush) for flush in bench.sent] == [1]
        assert "receive 1" not in bench.engine.calls


@pytest.mark.parametrize("junk", [b"", b"\x00", b"\x01forgotten", b"\x3f" * 30])
async def test_what_is_not_quic_does_not_reach_the_engine(junk: bytes) -> None:
    async with running() as bench:
        bench.transmitter.received([junk])
        assert bench.engine.calls == ["connect"]
        bench.transmitter.received([junk, SHORT])
        assert bench.engine.calls == ["connect", "receive 1"]


async def test_a_connection_that_the_peer_has_forgotten_is_over() -> None:
    async with running() as bench:
        notice = forgotten_notice(SHORT)
        assert notice is not None
        bench.transmitter.received([notice])
        assert bench.delivered == []
        bench.engine.outgoing = [SHORT]
        bench.transmitter.poke()
        await wait_all_tasks_blocked()
        bench.transmitter.received([notice])
        assert bench.delivered == [Terminated(ConnectionFailure(Cause.FORGOTTEN))]


@pytest.mark.parametrize("call", ["receive", "datagrams_to_send", "next_timer", "take_events"])
async def test_an_engine_that_fails_ends_its_own_connection(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Nothing is raised; what failed is told by its kind, without what the peer has sent."""

    def fail(*_: object) -> None:
        raise KeyError("what the peer has sent")

    async with running() as bench:
        monkeypatch.setattr(NotedEngine, call, fail)
        bench.transmitter.received([SHORT])
        await wait_all_tasks_blocked()
        failure = ConnectionFailure(Cause.PROTOCOL, 1, "KeyError in the QUIC library")
        assert bench.delivered == [Terminated(failure)]
        bench.transmitter.received([SHORT])
        bench.transmitter.stop()
        assert bench.delivered == [Terminated(failure)]


async def test_a_timer_that_fails_ends_its_own_connection(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    async with running() as bench:
        monkeypatch.setattr(NotedEngine, "handle_timer", fail)
        bench.engine.timer = trio.current_time() + 1
        bench.transmitter.poke()
        await trio.sleep(2)
        assert [type(event) for event in bench.delivered] == [Terminated]

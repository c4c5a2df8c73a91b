from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from session_proxy.errors import RefusedError
from session_proxy.lab import handshake
from session_proxy.lab.documents import REMOTE_HOST, PortSession
from session_proxy.lab.faults import Faults
from session_proxy.lab.smux_server import MAX_DATA, Command, SmuxFrame, SmuxReader
from session_proxy.profile.model import DataChannel as Settings
from session_proxy.protocol.ssm_frames import Flag
from session_proxy.ssm.errors import AgentTooOldError, AwsUnreachableError, DataChannelError, SsmError
from session_proxy.ssm.mux import (
    HELD_UP_AFTER,
    UNREAD_CHECK,
    UNREAD_LIMIT,
    SsmMux,
    open_ssm_mux,
)
from tests.support.ssm_service import SESSION, FakeService, open_service
from tunnel_relay.background import open_background

REMOTE = PortSession(REMOTE_HOST, "db.internal", 5432)


@attrs.define(eq=False)
class EchoServer:
    """The far side of the multiplexer: echoes on every stream."""

    service: FakeService
    refusing: bool = False
    echoing: bool = True
    opened: list[int] = attrs.field(factory=list[int])
    closed: list[int] = attrs.field(factory=list[int])
    received: dict[int, bytearray] = attrs.field(factory=dict[int, bytearray])

    async def run(self) -> None:
        reader = SmuxReader()
        while True:
            data = bytes(self.service.received)
            self.service.received.clear()
            for frame in reader.receive_data(data):
                self._take(frame)
            await trio.sleep(0.005)

    def send(self, frame: SmuxFrame) -> None:
        self.service.send(frame.encode())

    def _take(self, frame: SmuxFrame) -> None:
        match frame.command:
            case Command.SYN:
                self.opened.append(frame.stream)
                if self.refusing:
                    self.service.send_flag(Flag.CONNECT_TO_PORT_ERROR)
                    self.send(SmuxFrame(Command.FIN, frame.stream))
            case Command.PSH:
                self.received.setdefault(frame.stream, bytearray()).extend(frame.data)
                if self.echoing:
                    self.send(frame)
            case Command.FIN:
                self.closed.append(frame.stream)
            case Command.NOP:
                pass


@asynccontextmanager
async def opened(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[tuple[FakeService, EchoServer, SsmMux]]:
    async with (
        open_service(monkeypatch, session=REMOTE, faults=Faults(resend_head_only=True)) as service,
        open_background() as nursery,
    ):
        server = EchoServer(service)
        nursery.start_soon(server.run)
        async with open_ssm_mux(SESSION, control=service, settings=Settings()) as mux:
            yield service, server, mux


async def receive(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    found = b""
    while len(found) < size and (data := await stream.receive_some()):
        found += data
    return found


async def test_connections_share_the_session(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (_, server, mux):
        first, second = await mux.connect(), await mux.connect()
        assert (server.opened, mux.streams) == ([3, 5], 2)
        data = bytes(range(256)) * 1000
        await first.send_all(data)
        await second.send_all(b"hello")
        assert await receive(second, 5) == b"hello"
        assert await receive(first, len(data)) == data
        await first.aclose()
        await trio.sleep(0.1)
        assert (server.closed, mux.streams) == ([3], 1)
        with pytest.raises(trio.ClosedResourceError):
            await first.receive_some()


async def test_a_refused_connection_is_told_as_one(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (_, server, mux):
        server.refusing = True
        with pytest.raises(RefusedError, match="agent could not connect"):
            await mux.connect()
        server.refusing = False
        stream = await mux.connect()
        await stream.send_all(b"x")
        assert await receive(stream, 1) == b"x"


async def test_the_far_end_s_close_is_eof_after_its_data(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (_, server, mux):
        stream = await mux.connect()
        server.send(SmuxFrame(Command.PSH, 3, b"bye"))
        server.send(SmuxFrame(Command.FIN, 3))
        await trio.sleep(0.1)
        assert await receive(stream, 10) == b"bye"
        assert await stream.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError, match="far end closed"):
            await stream.send_all(b"x")


async def test_a_stream_that_nobody_reads_holds_up_the_others_but_no_memory(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (service, server, mux):
        stalled, other = await mux.connect(), await mux.connect()
        for _ in range(170):
            server.send(SmuxFrame(Command.PSH, 3, bytes(MAX_DATA)))
        await other.send_all(b"hello")
        await trio.sleep(101)
        assert len(service.sockets) == 1
        assert (mux.held_up, other.held) == (True, 0)
        assert len(await receive(stalled, 170 * MAX_DATA)) == 170 * MAX_DATA
        assert await receive(other, 5) == b"hello"


async def test_a_stream_that_stays_unread_while_another_waits_is_reset(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (_, server, mux):
        stalled, other = await mux.connect(), await mux.connect()
        for _ in range(170):
            server.send(SmuxFrame(Command.PSH, 3, bytes(MAX_DATA)))
        await other.send_all(b"hello")
        assert not mux.held_up
        began = trio.current_time()
        assert await receive(other, 5) == b"hello"
        assert UNREAD_LIMIT <= trio.current_time() - began <= UNREAD_LIMIT + 2 * UNREAD_CHECK
        with pytest.raises(trio.BrokenResourceError, match="nobody read it for 30 s, and it held up"):
            await stalled.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="nobody read it for 30 s"):
            await stalled.send_all(b"x")
        await stalled.aclose()
        await trio.sleep(1)
        assert server.closed == [3]
        assert (mux.streams, mux.held_up) == (1, False)


@pytest.mark.parametrize("reads", ["nobody else waits", "it is read slowly"])
async def test_a_stream_is_not_reset_where(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, reads: str
) -> None:
    async with opened(monkeypatch) as (_, server, mux), trio.open_nursery() as nursery:
        stalled = await mux.connect()
        for _ in range(170):
            server.send(SmuxFrame(Command.PSH, 3, bytes(MAX_DATA)))
        size = 170 * MAX_DATA
        if reads == "it is read slowly":
            other = await mux.connect()
            nursery.start_soon(other.receive_some)
            for _ in range(4):
                size -= len(await stalled.receive_some(1000))
                await trio.sleep(UNREAD_LIMIT / 2)
        else:
            await trio.sleep(2 * UNREAD_LIMIT)
        assert mux.held_up
        assert len(await receive(stalled, size)) == size
        assert not mux.held_up
        nursery.cancel_scope.cancel()


async def test_a_session_that_is_away_is_held_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (service, _, mux):
        service.resume_error = AwsUnreachableError("no route to AWS")
        service.socket.break_off()
        await trio.sleep(HELD_UP_AFTER / 2)
        assert not mux.held_up
        await trio.sleep(HELD_UP_AFTER)
        assert mux.held_up
        service.resume_error = None
        await service.wait_sockets(2)
        await trio.sleep(0.1)
        assert not mux.held_up


async def test_closing_a_full_stream_frees_the_others(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (_, server, mux):
        stalled, other = await mux.connect(), await mux.connect()
        for _ in range(170):
            server.send(SmuxFrame(Command.PSH, 3, bytes(MAX_DATA)))
        await other.send_all(b"hello")
        await trio.sleep(5)
        await stalled.aclose()
        assert await receive(other, 5) == b"hello"


@pytest.mark.parametrize("after", [0.0, 0.02])
async def test_a_connection_given_up_is_closed(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, after: float
) -> None:
    async with opened(monkeypatch) as (_, server, mux):
        with trio.move_on_after(after) as scope:
            await mux.connect()
        assert scope.cancelled_caught
        assert mux.streams == mux._smux.streams == 0
        await trio.sleep(0.5)
        assert server.closed == server.opened == [3]


async def test_streams_cannot_cut_each_other_s_frames(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """One that is closed, and one that is given up, while a third has more to send than fits."""
    data = bytes(range(256)) * 12_000
    async with opened(monkeypatch) as (_, server, mux):
        first, second, third = [await mux.connect() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.send_all, data)
            await trio.sleep(0.001)
            await second.aclose()
            with trio.move_on_after(0.1) as scope:
                await third.send_all(data)
            assert scope.cancelled_caught
            await third.aclose()
            assert await receive(first, len(data)) == data
        assert server.closed == [5, 7]
        assert not mux.closed.is_set()


async def test_the_session_s_end_breaks_every_stream(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (service, _, mux):
        stream = await mux.connect()
        service.end_session("expired")
        with pytest.raises(trio.BrokenResourceError, match="expired"):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="expired"):
            await stream.send_all(b"x")
        with pytest.raises(SsmError, match="expired"):
            await mux.connect()
        assert mux.closed.is_set()
        assert isinstance(mux.failure, DataChannelError)


async def test_nonsense_from_the_agent_ends_the_session(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (service, _, mux):
        stream = await mux.connect()
        service.send(b"HTTP/1.1 400 Bad Request\r\n")
        with pytest.raises(trio.BrokenResourceError, match="multiplexer cannot be understood"):
            await stream.receive_some()


async def test_an_old_agent_is_named(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.setattr(handshake, "AGENT_VERSION", "3.0.196.0")
    with pytest.raises(AgentTooOldError, match=r"version 3\.0\.196\.0.*update it"):
        async with opened(monkeypatch):
            pass


async def test_a_lost_websocket_costs_no_byte(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (service, _, mux):
        stream = await mux.connect()
        data = bytes(range(256)) * 8000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            start = await receive(stream, 1)
            service.socket.break_off()
            assert start + await receive(stream, len(data) - len(start)) == data
        assert len(service.resumed) == 1


async def test_one_task_may_receive_and_one_send(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (_, _, mux):
        stream = await mux.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.receive_some()
            nursery.cancel_scope.cancel()
        with pytest.raises(ValueError, match="at least 1"):
            await stream.receive_some(0)

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from session_proxy.profile.model import DataChannel as Settings
from session_proxy.ssm.errors import DataChannelError, PortUnreachableError
from session_proxy.ssm.stream import FIRST_BYTE_LIMIT, SsmStream, open_ssm_stream
from tests.support.ssm_service import SESSION, FakeService, open_service


@asynccontextmanager
async def opened(
    monkeypatch: pytest.MonkeyPatch, **options: object
) -> AsyncGenerator[tuple[FakeService, SsmStream]]:
    async with (
        open_service(monkeypatch, **options) as service,
        open_ssm_stream(SESSION, control=service, settings=Settings(), port=2222) as stream,
    ):
        yield service, stream


async def test_bytes_go_both_ways(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async with opened(monkeypatch) as (service, stream):
        service.send(b"SSH-2.0-them\r\n")
        await stream.send_all(bytearray(b"SSH-2.0-us\r\n"))
        await stream.wait_send_all_might_not_block()
        assert await stream.receive_some() == b"SSH-2.0-them\r\n"
    assert service.received == b"SSH-2.0-us\r\n"


async def test_nothing_listening_on_the_port_is_said_within_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The agent's worker dies without a word; the reference waits for ever."""
    async with opened(monkeypatch, connect_delay=1e9) as (_, stream):
        await stream.send_all(b"SSH-2.0-us\r\n")
        start = trio.current_time()
        with pytest.raises(trio.BrokenResourceError, match=r"port 2222.*is sshd running"):
            await stream.receive_some()
        assert trio.current_time() - start <= FIRST_BYTE_LIMIT + 0.1
        assert isinstance(stream.failure, PortUnreachableError)


async def test_the_server_may_take_its_time_after_the_first_byte(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (service, stream):
        service.send(b"S")
        await trio.sleep(1000)
        assert await stream.receive_some() == b"S"
        service.send(b"SH")
        assert await stream.receive_some() == b"SH"


async def test_a_port_that_takes_a_second_to_connect_costs_little_more(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The agent refuses data until then; they come again by themselves."""
    async with opened(monkeypatch, connect_delay=1.0) as (service, stream):
        await stream.send_all(b"client first")
        start = trio.current_time()
        await service.wait_received(12)
        assert service.received == b"client first"
        assert trio.current_time() - start < 2.1
        service.send(b"x")
        await trio.sleep(0.1)


async def test_the_end_is_eof_and_a_broken_stream_says_why(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (service, stream):
        service.end_session()
        assert await stream.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError, match="session has ended"):
            await stream.send_all(b"x")
        assert stream.failure is None
    async with opened(monkeypatch) as (service, stream):
        service.end_session("terminated by admin")
        with pytest.raises(trio.BrokenResourceError, match="terminated by admin") as caught:
            await stream.receive_some()
        assert isinstance(caught.value.__cause__, DataChannelError)


async def test_one_task_may_receive_and_one_send(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (service, stream):
        service.send(b"!")
        await stream.receive_some()
        service.socket.silent = True

        async def send() -> None:
            with trio.move_on_after(1):
                await stream.send_all(bytes(5_000_000))

        async def receive() -> None:
            with trio.move_on_after(1):
                await stream.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            for work in (
                stream.receive_some(),
                stream.send_all(b"x"),
                stream.wait_send_all_might_not_block(),
            ):
                with pytest.raises(trio.BusyResourceError):
                    await work


async def test_a_closed_stream_is_closed(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    async with opened(monkeypatch) as (_, stream):
        await stream.send_all(b"last")
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive_some()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await stream.aclose()
        await stream.aclose()
        for work in (stream.receive_some(), stream.send_all(b"x"), stream.wait_send_all_might_not_block()):
            with pytest.raises(trio.ClosedResourceError):
                await work


async def test_a_read_wants_at_least_a_byte(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with opened(monkeypatch) as (_, stream):
        with pytest.raises(ValueError, match="at least 1"):
            await stream.receive_some(0)

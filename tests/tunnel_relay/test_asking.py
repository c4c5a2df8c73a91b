"""Requests over links that come and go, in virtual time; the links are WebSockets over memory."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.live_sessions import open_couple
from tunnel_relay.asking import AskedRequest
from tunnel_relay.errors import RequestLostError
from tunnel_relay.protocol.requests import MAX_REQUEST, Request, Response, Status
from tunnel_relay.protocol.session import SessionSettings

SETTINGS = SessionSettings(requests=2, grace=10.0)


def request(payload: bytes = b"hello", most: int = 1000) -> Request:
    return Request(id="id", target="somewhere", payload=payload, most=most)


def done(payload: bytes = b"") -> Response:
    return Response(id="id", status=Status.DONE, payload=payload)


async def reverse(questions: trio.MemoryReceiveChannel[AskedRequest]) -> None:
    """Answer every request with its payload the other way round."""
    async for asked in questions:
        asked.answer(done(bytes(asked.request.payload[::-1])))


async def test_requests_outlive_their_links(autojump_clock: MockClock) -> None:
    """Requests of megabytes, while the link is cut again and again."""
    async with open_couple(SETTINGS) as couple, trio.open_nursery() as nursery:
        nursery.start_soon(reverse, couple.questions)

        async def ask(number: int) -> None:
            payload = bytes([number, 0]) * 1_000_000
            answer = await couple.client.ask(request(payload, most=len(payload)))
            assert answer.payload == payload[::-1]

        async def weather() -> None:
            while True:
                for _ in range(40):
                    await trio.lowlevel.checkpoint()
                couple.cut()
                await trio.sleep(1)
                await couple.connect()

        async with trio.open_nursery() as asking:
            for number in range(5):
                asking.start_soon(ask, number)
            nursery.start_soon(weather)
        assert couple.labels > 3
        assert couple.client.session.exchanges.idle
        nursery.cancel_scope.cancel()


async def test_the_longest_there_are_go_through(autojump_clock: MockClock) -> None:
    async with open_couple() as couple, trio.open_nursery() as nursery:
        nursery.start_soon(reverse, couple.questions)
        payload = bytes(MAX_REQUEST - 1) + b"x"
        answer = await couple.client.ask(request(payload, most=MAX_REQUEST))
        assert answer.payload == payload[::-1]
        nursery.cancel_scope.cancel()


async def test_who_waits_for_room_gets_it_when_another_gives_up(autojump_clock: MockClock) -> None:
    """Nothing is heard from the peer meanwhile: there is no link."""
    async with open_couple(SETTINGS) as couple, trio.open_nursery() as nursery:
        couple.cut()
        answers: list[Response] = []

        async def ask() -> None:
            answers.append(await couple.client.ask(request(b"another")))

        async with trio.open_nursery() as others:
            others.start_soon(couple.client.ask, request(b"given up"))
            others.start_soon(couple.client.ask, request(b"given up"))
            await wait_all_tasks_blocked()
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            others.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert not couple.client.session.exchanges.idle
        await couple.connect()
        asked = await couple.questions.receive()
        assert asked.request.payload == b"another"
        asked.answer(done())
        await wait_all_tasks_blocked()
        assert answers == [done()]
        nursery.cancel_scope.cancel()


async def test_a_session_that_ends_gives_up_requests(autojump_clock: MockClock) -> None:
    """Those that were sent, that wait for room, and that come later."""
    async with open_couple(SETTINGS) as couple, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(RequestLostError, match="no connection for 10 s"):
                await couple.client.ask(request())

        for _ in range(3):
            nursery.start_soon(ask)
        asked = await couple.questions.receive()
        couple.cut()
        await trio.sleep(11)
        await ask()
        asked.answer(done())


async def test_who_waits_for_a_link_hears_of_it(autojump_clock: MockClock) -> None:
    async with open_couple(SETTINGS) as couple, trio.open_nursery() as nursery:
        await couple.client.wait_attached()
        couple.cut()
        attached: list[float] = []

        async def wait() -> None:
            await couple.client.wait_attached()
            attached.append(trio.current_time())

        nursery.start_soon(wait)
        await trio.sleep(5)
        assert attached == []
        began = trio.current_time()
        await couple.connect()
        await wait_all_tasks_blocked()
        assert attached == [began]
        couple.cut()
        with pytest.raises(RequestLostError, match="no connection for 10 s"):
            await couple.client.wait_attached()


async def test_who_does_no_requests_says_so(autojump_clock: MockClock) -> None:
    async with open_couple() as couple:
        answer = await couple.agent.ask(request())
        assert answer == Response(id="id", status=Status.NOT_ALLOWED, detail="none is done here")

"""Requests from a client through links that are cut to a real target, once each."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.live_sessions import Couple, open_couple
from tunnel_relay.answering import Answering
from tunnel_relay.background import open_background
from tunnel_relay.errors import RequestLostError
from tunnel_relay.performing import to_services
from tunnel_relay.protocol.requests import Request, Response, Status
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.record import RecordSettings, open_record


@attrs.define(eq=False)
class World:
    """A far end that does requests at a target, which says what it hears the other way round."""

    answering: Answering
    heard: list[bytes]
    go: trio.Event


@asynccontextmanager
async def open_world(path: Path) -> AsyncGenerator[World]:
    heard: list[bytes] = []
    go = trio.Event()

    async def reverse(stream: trio.SocketStream) -> None:
        read = bytearray()
        async for data in stream:
            read += data
        heard.append(bytes(read))
        await go.wait()
        await stream.send_all(read[::-1])

    async with (
        open_record(path / "record.db", RecordSettings()) as record,
        open_background() as nursery,
    ):
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, reverse, [listener])
        connect = to_services({"db": listener.socket.getsockname()})
        yield World(Answering(nursery, record, "alice", connect), heard, go)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_session(world: World) -> AsyncGenerator[Couple]:
    """Begin a session with the far end."""
    async with open_couple(SessionSettings(grace=0.05)) as couple, open_background() as nursery:

        async def take() -> None:
            async for asked in couple.questions:
                world.answering.asked(asked)

        nursery.start_soon(take)
        yield couple
        nursery.cancel_scope.cancel()


def request(payload: bytes = b"hello", target: str = "db") -> Request:
    return Request(id="id", target=target, payload=payload)


async def test_a_request_is_done_at_its_target(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_session(world) as couple:
        world.go.set()
        response = await couple.client.ask(request())
        assert response == Response(id="id", status=Status.DONE, payload=b"olleh")
        assert await couple.client.ask(request()) == response
        assert world.heard == [b"hello"]


async def test_what_is_not_offered_is_not_reached(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_session(world) as couple:
        response = await couple.client.ask(request(target="ssh"))
        assert (response.status, response.detail) == (Status.NO_SUCH_TARGET, "no service 'ssh' is offered")


async def test_a_request_whose_session_ends_is_done_and_the_next_session_hears_of_it(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        async with open_session(world) as couple, trio.open_nursery() as asking:

            async def ask() -> None:
                with pytest.raises(RequestLostError, match=r"no connection for 0\.05 s"):
                    await couple.client.ask(request())

            asking.start_soon(ask)
            while not world.heard:
                await trio.lowlevel.checkpoint()
            couple.cut()
        async with open_session(world) as couple, trio.open_nursery() as asking:
            responses: list[Response] = []

            async def ask_again() -> None:
                responses.append(await couple.client.ask(request()))

            asking.start_soon(ask_again)
            await wait_all_tasks_blocked()
            world.go.set()
        assert responses == [Response(id="id", status=Status.DONE, payload=b"olleh")]
        assert world.heard == [b"hello"]


async def test_who_drains_does_what_it_has_begun_and_no_more(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_session(world) as couple, trio.open_nursery() as nursery:
        responses: list[Response] = []
        over = trio.Event()

        async def ask() -> None:
            responses.append(await couple.client.ask(request()))

        async def wait_over() -> None:
            await world.answering.wait_over()
            over.set()

        nursery.start_soon(ask)
        while not world.heard:
            await trio.lowlevel.checkpoint()
        world.answering.draining = "it is being shut down"
        nursery.start_soon(wait_over)
        busy = await couple.client.ask(attrs.evolve(request(), id="another"))
        assert (busy.status, busy.detail) == (Status.BUSY, "it is being shut down")
        await wait_all_tasks_blocked()
        assert not over.is_set()
        world.go.set()
        await over.wait()
    assert responses == [Response(id="id", status=Status.DONE, payload=b"olleh")]
    assert world.heard == [b"hello"]

"""An agent, its relay and a client over real sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from tests.support.exchanges import exchange
from tests.support.relay_tokens import AUDIENCE, KEYS, make_token
from tests.support.tunnels import eventually
from tunnel_relay.agent.running import Agent, AgentEvent, AgentSettings, open_agent
from tunnel_relay.background import open_background
from tunnel_relay.client.reaching import Reaching
from tunnel_relay.dial_events import Linked
from tunnel_relay.dial_settings import DialSettings
from tunnel_relay.dialing import Dialing
from tunnel_relay.errors import StoreError
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.requests import Request, Response, Status
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.protocol.tokens import Verifier
from tunnel_relay.relay_stream import StreamResetError
from tunnel_relay.server.port import PublicPort
from tunnel_relay.server.service import RelayService
from tunnel_relay.server.switch import Switch


async def give(*, anew: bool) -> str:
    del anew
    await trio.lowlevel.checkpoint()
    return make_token("alice")


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


async def no_page(stream: trio.abc.Stream) -> None:
    await stream.aclose()


@attrs.define(eq=False)
class Joined:
    """An agent and a client of its relay."""

    agent: Agent
    client: Reaching
    told: list[AgentEvent]
    switch: Switch


@asynccontextmanager
async def joined(
    record: Path | None = None, service: Callable[[trio.SocketStream], Awaitable[None]] = echo
) -> AsyncGenerator[Joined]:
    told: list[AgentEvent] = []
    port = PublicPort(RelayService(Verifier(KEYS, AUDIENCE), time.time, lambda _event: None), no_page)
    with trio.fail_after(20):
        async with open_background() as nursery:
            echoing = await nursery.start(partial(trio.serve_tcp, service, 0, host="127.0.0.1"))
            serving = await nursery.start(
                partial(trio.serve_tcp, lambda stream: port.serve_socket(stream), 0, host="127.0.0.1")
            )
            url = f"ws://127.0.0.1:{serving[0].socket.getsockname()[1]}"
            dial = DialSettings(endpoints=[Endpoint(url=url)])
            settings = AgentSettings(
                name="nas",
                services={"echo": echoing[0].socket.getsockname()[:2]},
                dial=dial,
                record=record,
            )
            client = Reaching(nursery, "nas", SessionSettings())
            dialing = Dialing(
                client, dial, give, rng=lambda: 0.5, unix_time=time.time, notify=lambda _event: None
            )
            nursery.start_soon(dialing.run)
            async with open_agent(
                settings, give, rng=lambda: 0.5, unix_time=time.time, notify=told.append
            ) as agent:
                yield Joined(agent, client, told, port.service.switch)


async def test_an_agent_offers_its_services() -> None:
    async with joined() as it:
        stream = it.client.open_stream("echo")
        await stream.wait_accepted()
        assert it.agent.offering.streams == 1
        assert await exchange(stream, b"hello") == b"hello"
        await it.agent.offering.wait_streams_over()
        assert it.agent.offering.streams == 0
        assert [type(event) for event in it.told] == [Linked]
        assert it.agent.dialing.linked


async def test_who_parts_says_so() -> None:
    """A client need not wait for its patience to end."""
    async with joined() as it:
        stream = it.client.open_stream("echo")
        await stream.wait_accepted()
        await it.agent.part("that was it")
        with pytest.raises(StreamResetError, match="that was it"):
            await stream.receive_some()


async def test_who_drains_goes_on_with_what_there_is_and_is_offered_to_nobody() -> None:
    async with joined() as it:
        stream = it.client.open_stream("echo")
        await stream.wait_accepted()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.agent.drain, "that was it")
            await eventually(lambda: it.switch.find("alice", "nas", None) is None)
            assert await exchange(stream, b"hello") == b"hello"
        assert it.switch.find("alice", "nas", it.agent.offering.instance) is not None


async def test_requests_are_done_where_there_is_a_record(tmp_path: Path) -> None:
    async with joined(tmp_path / "record.db") as it:
        request = Request(id="1", target="echo", payload=b"once", most=100)
        for _ in range(2):
            reached = await it.client.wait_ready()
            assert reached.record
            response = await reached.ask(request)
            assert (response.status, response.payload) == (Status.DONE, b"once")


async def test_who_drains_answers_what_it_has_begun(tmp_path: Path) -> None:
    told, go = trio.Event(), trio.Event()

    async def think(stream: trio.SocketStream) -> None:
        async for _ in stream:
            told.set()
        await go.wait()
        await stream.send_all(b"done")

    responses: list[Response] = []
    async with joined(tmp_path / "record.db", think) as it, trio.open_nursery() as nursery:
        over = trio.Event()

        async def ask() -> None:
            responses.append(
                await (await it.client.wait_ready()).ask(
                    Request(id="1", target="echo", payload=b"once", most=100)
                )
            )

        async def leave() -> None:
            await it.agent.drain("that was it")
            await it.agent.part("that was it")
            over.set()

        nursery.start_soon(ask)
        await told.wait()
        nursery.start_soon(leave)
        busy = await (await it.client.wait_ready()).ask(
            Request(id="2", target="echo", payload=b"more", most=100)
        )
        assert (busy.status, busy.detail) == (Status.BUSY, "that was it")
        assert not over.is_set()
        go.set()
        await over.wait()
    assert [(each.status, each.payload) for each in responses] == [(Status.DONE, b"done")]


async def test_a_record_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        async with joined(tmp_path / "file" / "record.db"):
            pass

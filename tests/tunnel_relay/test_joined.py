"""A client, the switch and an agent joined, with a service behind: whatever is cut, streams and requests go on."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from tests.support.websockets import open_websocket_pair
from tunnel_relay.agent.offering import Offering
from tunnel_relay.answering import Answering
from tunnel_relay.background import open_background
from tunnel_relay.client import forwarding, reaching
from tunnel_relay.client.forwarding import open_forwarding
from tunnel_relay.client.reaching import Reaching
from tunnel_relay.errors import LinkLostError
from tunnel_relay.link import Link
from tunnel_relay.performing import to_services
from tunnel_relay.policy.outbox import OutboxSettings
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.requests import Request, Status
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.record import RecordSettings, open_record
from tunnel_relay.relay_stream import StreamRefusedError, StreamResetError
from tunnel_relay.server.switch import Port, Switch

SETTINGS = SessionSettings(window=64_000, kept=256_000, grace=20)


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes."""
    with suppress(trio.BrokenResourceError):
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()


@attrs.define(eq=False)
class World:
    """A switch, an agent of a user, and a client; both dial again when they are cut."""

    nursery: trio.Nursery
    offering: Offering
    client: Reaching
    switch: Switch = attrs.field(factory=Switch)
    cuts: dict[str, trio.CancelScope] = attrs.field(factory=dict[str, trio.CancelScope])
    links: int = 0

    async def dial(self, who: str, end: Offering | Reaching, port: Callable[[], Port]) -> None:
        """Keep *end* linked to the switch."""
        while True:
            there = port()
            with trio.CancelScope() as self.cuts[who]:
                async with open_websocket_pair() as (near, far), trio.open_nursery() as nursery:
                    self.links += 1
                    distant = there.link = Link(far, there.heed)
                    if there.agent is not None:
                        self.switch.register(there)
                    link = Link(near, end.heed)
                    end.attach(link)

                    async def run(each: Link) -> None:
                        with suppress(LinkLostError):
                            await each.run()

                    nursery.start_soon(run, distant)
                    nursery.start_soon(run, link)
            end.detach()
            if there.agent is not None:
                there.switch.unregister(there)
            there.lose(f"the {who}'s connection is lost")

    def cut(self, who: str) -> None:
        """Cut the link of the client or the agent."""
        self.cuts[who].cancel()

    def restart(self) -> None:
        """Replace the switch by one that knows nothing."""
        self.switch = Switch()
        for scope in self.cuts.values():
            scope.cancel()


@asynccontextmanager
async def open_world(user: str = "alice") -> AsyncGenerator[World]:
    """Run it all, with an echo service."""
    async with open_background() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        host, port = listener.socket.getsockname()
        offering = Offering(nursery, {"echo": (host, port)}, "one", SETTINGS)
        client = Reaching(nursery, "nas", SETTINGS)
        world = World(nursery, offering, client)
        nursery.start_soon(
            world.dial, "agent", offering, lambda: Port(world.switch, "alice", agent="nas", instance="one")
        )
        nursery.start_soon(world.dial, "client", client, lambda: Port(world.switch, user))
        await trio.testing.wait_all_tasks_blocked()
        yield world
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reaching, forwarding):
        monkeypatch.setattr(module, "PAUSE", 0.01)


async def exchange(world: World, data: bytes) -> bytes:
    """Send *data* to the echo service, and return what comes back."""
    stream = world.client.open_stream("echo")
    await stream.wait_accepted()
    received = bytearray()
    async with stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        while piece := await stream.receive_some():
            received += piece
    return bytes(received)


async def test_a_client_reaches_a_service() -> None:
    with trio.fail_after(10):
        async with open_world() as world:
            assert await exchange(world, b"hello" * 100_000) == b"hello" * 100_000


@pytest.mark.parametrize("seed", range(3))
async def test_streams_outlive_whatever_is_cut(seed: int) -> None:
    """The client's link, the agent's, and the switch itself, which forgets everything."""
    rng = random.Random(seed)
    data = [rng.randbytes(400_000) for _ in range(8)]
    with trio.fail_after(30):
        async with open_world() as world, trio.open_nursery() as nursery:

            async def weather() -> None:
                deeds = (partial(world.cut, "client"), partial(world.cut, "agent"), world.restart)
                while True:
                    for _ in range(rng.randrange(100)):
                        await trio.lowlevel.checkpoint()
                    rng.choice(deeds)()
                    await trio.sleep(0.02)

            nursery.start_soon(weather)
            async with trio.open_nursery() as transfers:

                async def transfer(content: bytes) -> None:
                    assert await exchange(world, content) == content

                for content in data:
                    transfers.start_soon(transfer, content)
            assert world.links > 8
            nursery.cancel_scope.cancel()


async def test_nothing_else_can_be_reached() -> None:
    with trio.fail_after(10):
        async with open_world() as world:
            stream = world.client.open_stream("ssh")
            with pytest.raises(StreamRefusedError, match="no service 'ssh' is offered") as caught:
                await stream.wait_accepted()
            assert caught.value.reason is Reason.NO_SUCH_SERVICE


async def test_nobody_reaches_another_user_s_agent() -> None:
    with trio.fail_after(10):
        async with open_world(user="mallory") as world:
            stream = world.client.open_stream("echo")
            with trio.move_on_after(0.5):
                await stream.wait_accepted()
                pytest.fail("reached")
            assert world.client.why_not == "no agent 'nas' is connected, nor any other of 'mallory'"


async def test_a_session_that_the_agent_has_forgotten_is_lost_at_once() -> None:
    with trio.fail_after(10):
        async with open_world() as world:
            stream = world.client.open_stream("echo")
            await stream.wait_accepted()
            world.offering._sessions.clear()  # pyright: ignore[reportPrivateUsage]
            world.cut("client")
            with pytest.raises(StreamResetError, match="not known here"):
                await stream.receive_some()
            assert await exchange(world, b"anew") == b"anew"


async def test_requests_are_done_once_whatever_is_cut(tmp_path: Path) -> None:
    """The links, the switch, and the sessions, which the agent forgets."""
    rng = random.Random(1)
    with trio.fail_after(30):
        async with (
            open_record(tmp_path / "record.db", RecordSettings()) as record,
            open_world() as world,
            open_forwarding(
                world.client, settings=OutboxSettings(), store=None, notify=lambda _event: None
            ) as requests,
            trio.open_nursery() as nursery,
        ):
            heard: list[bytes] = []

            async def count(stream: trio.SocketStream) -> None:
                read = bytearray()
                async for data in stream:
                    read += data
                heard.append(bytes(read))
                await stream.send_all(read)

            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, count, [listener])
            connect = to_services({"db": listener.socket.getsockname()})
            world.offering.asked = Answering(nursery, record, "alice", connect).asked

            def forget() -> None:
                for kept in list(world.offering._sessions.values()):  # pyright: ignore[reportPrivateUsage]
                    kept.live.lose("forgotten")
                world.cut("client")

            async def weather() -> None:
                deeds = (
                    partial(world.cut, "client"),
                    partial(world.cut, "agent"),
                    world.restart,
                    forget,
                )
                while True:
                    for _ in range(rng.randrange(100)):
                        await trio.lowlevel.checkpoint()
                    rng.choice(deeds)()
                    await trio.sleep(0.02)

            payloads = [rng.randbytes(20_000 * number) for number in range(12)]

            async def ask(number: int, payload: bytes) -> None:
                response = await requests.forward(
                    Request(id=str(number), target="db", payload=payload, most=len(payload))
                )
                assert (response.status, response.payload) == (Status.DONE, payload)

            nursery.start_soon(weather)
            async with trio.open_nursery() as asking:
                for number, payload in enumerate(payloads):
                    asking.start_soon(ask, number, payload)
            assert sorted(heard) == sorted(payloads)
            nursery.cancel_scope.cancel()

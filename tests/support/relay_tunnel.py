"""A relay, an agent and what it offers in this process, and cables that can be cut between them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from tests.support.cable import Cable, serve_cable
from tests.support.relay_tokens import AUDIENCE, KEYS, make_token
from tunnel_relay.agent.running import Agent, AgentSettings, open_agent
from tunnel_relay.background import open_background
from tunnel_relay.dial_settings import DialSettings, TokenSource
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.tokens import Verifier
from tunnel_relay.server.port import PublicPort
from tunnel_relay.server.service import RelayService

Handler = Callable[[trio.SocketStream], Awaitable[object]]


def give_token(user: str = "alice") -> TokenSource:
    """Return what gives tokens of *user*."""

    async def give(*, anew: bool) -> str:
        del anew
        await trio.lowlevel.checkpoint()
        return make_token(user)

    return give


@attrs.define(eq=False)
class Target:
    """A service that keeps what it was sent, and answers with that in capitals."""

    heard: list[bytes] = attrs.field(factory=list[bytes])
    held: trio.Event | None = None
    """Where there is one, answers wait for it."""

    async def serve(self, stream: trio.SocketStream) -> None:
        said = b"".join([bytes(chunk) async for chunk in stream])
        self.heard.append(said)
        if self.held is not None:
            await self.held.wait()
        await stream.send_all(said.upper())
        await stream.send_eof()


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


async def _no_page(stream: trio.abc.Stream) -> None:
    await stream.aclose()


@attrs.define(eq=False)
class World:
    """A relay at *address*; its agent ``nas`` offers ``echo``, ``target`` and more."""

    nursery: trio.Nursery
    address: str
    target: Target
    agent: Agent
    agent_cable: Cable

    @property
    def dial(self) -> DialSettings:
        """How to get there."""
        return DialSettings(endpoints=[Endpoint(url=f"ws://{self.address}")])

    async def lay(self, port: int = 0) -> Cable:
        """Lay a cable to the relay."""
        return await self.nursery.start(serve_cable, self.address, port)

    async def cut_agent(self) -> None:
        """Cut the agent's cable, and lay it again once the agent has noticed."""
        self.agent_cable.cut()
        while self.agent.dialing.linked:
            await self.agent.dialing.changed.wait()
        self.agent_cable = await self.lay(self.agent_cable.port)


def dial(cable: Cable) -> DialSettings:
    """Return how to get through *cable*."""
    return DialSettings(endpoints=[Endpoint(url=f"ws://{cable.address}")])


@asynccontextmanager
async def open_world(
    record: Path | None = None, services: Mapping[str, tuple[str, int]] | None = None
) -> AsyncGenerator[World]:
    """Run it all for a block; the agent offers *services*, too."""
    port = PublicPort(RelayService(Verifier(KEYS, AUDIENCE), time.time, lambda _event: None), _no_page)
    target = Target()
    async with open_background() as nursery:

        async def serve(handler: Handler) -> tuple[str, int]:
            listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
            return listeners[0].socket.getsockname()[:2]

        offered = {"echo": await serve(echo), "target": await serve(target.serve), **(services or {})}
        address = "{}:{}".format(*await serve(port.serve_socket))
        cable = await nursery.start(serve_cable, address)
        settings = AgentSettings(
            name="nas",
            services=offered,
            dial=dial(cable),
            record=record,
        )
        async with open_agent(
            settings,
            give_token(),
            rng=lambda: 0.5,
            unix_time=time.time,
            notify=lambda _event: None,
        ) as agent:
            while not agent.dialing.linked:
                await agent.dialing.changed.wait()
            yield World(nursery, address, target, agent, cable)

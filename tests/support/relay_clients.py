"""Clients of a relay, and agents, by the library."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import trio

from tests.support.relay_tokens import make_token
from tunnel_relay.agent.offering import Offering
from tunnel_relay.background import open_background
from tunnel_relay.client.reaching import Reaching
from tunnel_relay.dial_settings import DialSettings
from tunnel_relay.dialing import Dialing
from tunnel_relay.policy.selector import Endpoint, SelectorSettings
from tunnel_relay.protocol.session import SessionSettings


@asynccontextmanager
async def open_client(
    url: str, *, agent: str = "", user: str = "alice", selector: SelectorSettings | None = None
) -> AsyncGenerator[Reaching]:
    """Be linked to the relay at *url* for a block."""

    async def give(*, anew: bool) -> str:
        del anew
        await trio.lowlevel.checkpoint()
        return make_token(user)

    async with open_background() as nursery:
        reaching = Reaching(nursery, agent, SessionSettings())
        settings = DialSettings(endpoints=[Endpoint(url=url)], selector=selector or SelectorSettings())
        dialing = Dialing(
            reaching, settings, give, rng=lambda: 0.5, unix_time=time.time, notify=lambda _event: None
        )
        nursery.start_soon(dialing.run)
        yield reaching


@asynccontextmanager
async def open_agent(
    url: str, services: Mapping[str, int], *, selector: SelectorSettings | None = None
) -> AsyncGenerator[None]:
    """Be alice's agent ``nas`` at the relay at *url* for a block; *services* are ports of this machine."""

    async def give(*, anew: bool) -> str:
        del anew
        await trio.lowlevel.checkpoint()
        return make_token("alice")

    async with open_background() as nursery:
        addresses = {name: ("127.0.0.1", port) for name, port in services.items()}
        offering = Offering(nursery, addresses, "one", SessionSettings())
        query = [("agent", "nas"), ("instance", "one")]
        settings = DialSettings(
            endpoints=[Endpoint(url=url)], query=query, selector=selector or SelectorSettings()
        )
        dialing = Dialing(
            offering, settings, give, rng=lambda: 0.5, unix_time=time.time, notify=lambda _event: None
        )
        nursery.start_soon(dialing.run)
        yield

"""Clients of a relay, by the library."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from tests.support.relay_tokens import make_token
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

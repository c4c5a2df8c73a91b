"""Pieces of the lab's world for tests of its parts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from session_proxy.lab.agent import AgentSettings
from session_proxy.lab.control_api import Ticket
from session_proxy.lab.documents import SSH, PortSession
from session_proxy.lab.faults import Faults
from session_proxy.lab.gateway import Gateway
from session_proxy.lab.http import serve_connection
from session_proxy.lab.instances import DEFAULT_INSTANCES
from session_proxy.lab.listening import open_sockets
from tunnel_relay.background import open_background


@asynccontextmanager
async def open_gateway(
    faults: Faults | None = None, settings: AgentSettings | None = None
) -> AsyncGenerator[Gateway]:
    """A gateway that listens, without the control calls' HTTP."""
    async with (
        Gateway.open(settings or AgentSettings(), faults or Faults()) as gateway,
        open_background() as nursery,
    ):
        sockets = await open_sockets()
        gateway.url = f"ws://{sockets.address}"
        await nursery.start(
            trio.serve_listeners, partial(serve_connection, gateway.serve_client), sockets.tcp
        )
        yield gateway


def start(gateway: Gateway, port: int, document: str = SSH, host: str | None = None) -> Ticket:
    """Start a session to *port*."""
    return gateway.start_session(DEFAULT_INSTANCES[0], PortSession(document, host, port))


@asynccontextmanager
async def open_port(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncGenerator[int]:
    """Something that listens on loopback for the agent to connect to; yields its port."""
    async with open_background() as nursery:
        sockets = await open_sockets()
        await nursery.start(trio.serve_listeners, serve, sockets.tcp)
        yield sockets.port

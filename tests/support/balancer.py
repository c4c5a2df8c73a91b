"""A TCP balancer: each connection goes to the next server that takes it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from tunnel_relay.background import open_background


@attrs.define(eq=False)
class Balancer:
    """Forwards connections to *servers* in turn; they may be replaced while it runs.

    Attributes:
      servers: Their addresses.
      address: Where it listens.
      taken: Which server each connection went to.

    """

    servers: list[str]
    address: str = ""
    taken: list[str] = attrs.field(factory=list[str])
    _turns: itertools.count[int] = attrs.field(factory=itertools.count, init=False)

    async def forward(self, near: trio.SocketStream) -> None:
        """Forward one connection."""
        far = await self._dial()
        if far is None:
            return
        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(_copy, near, far)
            nursery.start_soon(_copy, far, near)

    async def _dial(self) -> trio.SocketStream | None:
        first = next(self._turns)
        for number in range(len(self.servers)):
            server = self.servers[(first + number) % len(self.servers)]
            host, _, port = server.rpartition(":")
            with suppress(OSError):
                stream = await trio.open_tcp_stream(host, int(port))
                self.taken.append(server)
                return stream
        return None


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for chunk in source:
            await sink.send_all(chunk)
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await sink.send_eof()


@asynccontextmanager
async def open_balancer(*servers: str) -> AsyncGenerator[Balancer]:
    """Balance for a block."""
    balancer = Balancer(list(servers))
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    balancer.address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with open_background() as nursery:
        nursery.start_soon(trio.serve_listeners, balancer.forward, listeners)
        yield balancer

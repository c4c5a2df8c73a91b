"""The address where operators ask a service how it is; it may move while the service runs."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from session_proxy.inbound.sockets import open_listeners, socket_name
from session_proxy.observability.http import HttpRoutes, serve_http
from session_proxy.profile.model import ListenAddress


@attrs.define(eq=False)
class AdminPort:
    """Serves *pages*, made when a service begins to listen, in tasks of a nursery."""

    _nursery: trio.Nursery
    _pages: Callable[[], HttpRoutes]
    address: ListenAddress | None = attrs.field(default=None, init=False)
    """As a person writes it."""
    bound: tuple[str, ...] = attrs.field(default=(), init=False)
    """What is listened on."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    async def open(self, address: ListenAddress | None) -> None:
        """Serve at *address*, if that is any; raises `ListenError`."""
        async with self.prepare(address) as move:
            move()

    @asynccontextmanager
    async def prepare(self, address: ListenAddress | None) -> AsyncGenerator[Callable[[], None]]:
        """Take *address*, where it is another one, for a block that may call what is yielded to serve there.

        Raises:
          ListenError: it cannot be listened on.

        """
        if address == self.address:
            yield lambda: None
            return
        sockets = [] if address is None else await open_listeners([address])
        try:
            yield partial(self._move, address, sockets)
        finally:
            if self.address != address:
                for sock in sockets:
                    sock.close()

    def _move(self, address: ListenAddress | None, sockets: Sequence[socket.socket]) -> None:
        self._scope.cancel()
        self._scope = trio.CancelScope()
        self.address, self.bound = address, tuple(str(socket_name(sock)) for sock in sockets)
        if sockets:
            self._nursery.start_soon(self._serve, sockets, self._scope)

    async def _serve(self, sockets: Sequence[socket.socket], scope: trio.CancelScope) -> None:
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]
        with scope:
            await serve_http(self._pages(), listeners)

"""A way to a port of this machine that can be cut, or let nothing through."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from tunnel_relay.background import open_background

READ = 256 * 1024


@attrs.define(eq=False)
class Cable:
    """Forwards connections from *port* to the port *far*, both of 127.0.0.1."""

    port: int
    far: int
    _open: set[trio.SocketStream] = attrs.field(factory=set[trio.SocketStream], init=False)
    _flows: trio.Event = attrs.field(factory=trio.Event, init=False)

    def cut(self) -> None:
        """Reset all connections; new ones are let through."""
        cut, self._open = self._open, set()
        for stream in cut:
            # With a RST instead of a farewell.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()
        self.flow()

    def stall(self) -> None:
        """Let nothing through, and close nothing."""
        self._flows = trio.Event()

    def flow(self) -> None:
        """Let everything through (again)."""
        self._flows.set()

    async def forward(self, near: trio.SocketStream) -> None:
        """Forward a connection until it ends."""
        with suppress(OSError):
            async with (
                await trio.open_tcp_stream("127.0.0.1", self.far) as far,
                trio.open_nursery() as nursery,
            ):
                pair = {near, far}
                self._open |= pair
                nursery.start_soon(self._copy, near, far)
                nursery.start_soon(self._copy, far, near)
            self._open -= pair

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(READ):
                await self._flows.wait()
                await sink.send_all(data)
            await sink.send_eof()


@asynccontextmanager
async def open_cable(far: int) -> AsyncGenerator[Cable]:
    """Lay a cable to the port *far* for the block."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    cable = Cable(int(listeners[0].socket.getsockname()[1]), far)
    cable.flow()
    async with open_background() as nursery:
        nursery.start_soon(trio.serve_listeners, cable.forward, listeners)
        yield cable
        nursery.cancel_scope.cancel()

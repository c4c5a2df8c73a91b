"""A way to an address that can be cut, and laid again."""

from __future__ import annotations

from contextlib import suppress

import attrs
import trio


@attrs.frozen(eq=False)
class Cable:
    """A way to somewhere, at *address*, that can be cut."""

    address: str
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def cut(self) -> None:
        """End all that goes through, and let nothing through any more."""
        self.scope.cancel()


async def serve_cable(address: str, port: int = 0, *, task_status: trio.TaskStatus[Cable]) -> None:
    """Forward connections to *address* until the cable is cut; they come in at *port*, or at a free one."""

    async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for chunk in source:
                await sink.send_all(chunk)
            await sink.send_eof()

    async def forward(near: trio.SocketStream) -> None:
        host, _, far_port = address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(far_port)) as far, trio.open_nursery() as nursery:
            nursery.start_soon(copy, near, far)
            nursery.start_soon(copy, far, near)

    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    cable = Cable(f"127.0.0.1:{listeners[0].socket.getsockname()[1]}")
    task_status.started(cable)
    with cable.scope:
        await trio.serve_listeners(forward, listeners)

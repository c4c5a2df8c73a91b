"""Pairs of connected sockets, and servers on loopback ports that the system chooses."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager

import trio

from session_proxy.outbound.socket_stream import PlainSocketStream
from tunnel_relay.background import open_background

LOOPBACK = "127.0.0.1"


def tcp_pair(family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
    """Return two connected, non-blocking TCP sockets."""
    with socket.socket(family) as listener:
        listener.bind((LOOPBACK if family == socket.AF_INET else "::1", 0))
        listener.listen()
        client = socket.socket(family)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    for sock in (client, server):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


@contextmanager
def stream_pair() -> Generator[tuple[PlainSocketStream, PlainSocketStream]]:
    """Two connected streams, closed behind the block."""
    first, second = (PlainSocketStream(sock) for sock in tcp_pair())
    try:
        yield first, second
    finally:
        first.close()
        second.close()


def closed_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return sock.getsockname()[1]


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Read to the end of *stream*."""
    data = bytearray()
    while piece := await stream.receive_some():
        data += piece
    return bytes(data)


async def read_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """Read *count* bytes, which must come."""
    data = bytearray()
    while len(data) < count:
        piece = await stream.receive_some(count - len(data))
        assert piece, f"ended after {bytes(data)!r}"
        data += piece
    return bytes(data)


async def echo(stream: trio.SocketStream) -> None:
    """Send everything back, and pass on the end."""
    async for piece in stream:
        await stream.send_all(piece)
    await stream.send_eof()


@asynccontextmanager
async def open_server(
    serve: Callable[[trio.SocketStream], Awaitable[None]], host: str = LOOPBACK
) -> AsyncGenerator[int]:
    """Serve on a free port of *host* for the block, whatever the clients do; yields the port."""

    async def handle(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await serve(stream)

    async with open_background() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=host)
        await nursery.start(trio.serve_listeners, handle, [listener])
        yield listener.socket.getsockname()[1]

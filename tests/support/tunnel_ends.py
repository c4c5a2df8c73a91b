"""Streams of a QUIC connection in memory, for the pieces of a tunnel that use them."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio

from awg_obfs.quic.settings import QuicSettings
from awg_obfs.quic.stream import QuicStream
from tests.support.quic_link import Couple, Weather, open_couple


@attrs.define(eq=False)
class StreamPair:
    """A stream as the client and as the server have it, and their connection."""

    client: QuicStream
    server: QuicStream
    couple: Couple


@asynccontextmanager
async def open_stream_pair(
    first: bytes = b"", settings: QuicSettings | None = None
) -> AsyncGenerator[StreamPair]:
    """Open a stream, on which the client has sent *first*."""
    async with open_couple(settings=settings, weather=lambda: Weather(delay=0.0)) as couple:
        stream = couple.client.open_stream()
        await stream.send_all(first or b"!")
        served = await couple.server.accept_stream()
        if not first:
            await served.receive_some()
        yield StreamPair(stream, served, couple)


@contextmanager
def tcp_pair() -> Generator[tuple[socket.socket, socket.socket]]:
    """Yield two connected sockets that do not block, of which the first need not be closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


async def receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """Return *count* bytes."""
    received = bytearray()
    while len(received) < count:
        data = await stream.receive_some(count - len(received))
        assert data, "the stream ended early"
        received += data
    return bytes(received)

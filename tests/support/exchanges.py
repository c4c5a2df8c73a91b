"""Bytes there and back."""

from __future__ import annotations

import trio


async def exchange(stream: trio.abc.Stream, data: bytes) -> bytes:
    """Send *data* and its end to what echoes; return what comes back, and close *stream*."""
    assert isinstance(stream, trio.abc.HalfCloseableStream)
    received = bytearray()
    async with stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        while piece := await stream.receive_some():
            received += piece
    return bytes(received)

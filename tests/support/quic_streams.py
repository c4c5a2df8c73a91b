"""What tests do with QUIC streams."""

from __future__ import annotations

from awg_obfs.quic.stream import QuicStream


async def read_all(stream: QuicStream) -> bytes:
    """Return everything up to the end of the stream."""
    received = bytearray()
    while piece := await stream.receive_some():
        received += piece
    return bytes(received)


async def receive_exactly(stream: QuicStream, count: int) -> bytes:
    """Return *count* bytes."""
    received = b""
    while len(received) < count:
        piece = await stream.receive_some(count - len(received))
        assert piece, "the stream ended early"
        received += piece
    return received


async def send_whole(stream: QuicStream, data: bytes) -> None:
    """Send *data* and the end of the stream."""
    await stream.send_all(data)
    await stream.send_eof()


async def send_until_refused(stream: QuicStream) -> None:
    """Send for ever, or until that raises."""
    while True:
        await stream.send_all(b"nobody reads")


async def echo(stream: QuicStream) -> None:
    """Send back what comes, and the end after it."""
    while piece := await stream.receive_some():
        await stream.send_all(piece)
    await stream.send_eof()

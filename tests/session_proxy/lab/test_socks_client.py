from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from session_proxy.lab.socks_client import SocksRefusedError, connect_through, encode_request
from session_proxy.target import Target


@asynccontextmanager
async def proxy(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncGenerator[str]:
    """Serve connections with *serve* on a free port; yields the address."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def receive_exactly(stream: trio.SocketStream, count: int) -> bytes:
    received = b""
    while len(received) < count:
        received += await stream.receive_some(count - len(received))
    return received


@pytest.mark.parametrize(
    ("target", "request_bytes"),
    [
        ("192.0.2.1:80", bytes.fromhex("05 01 00 01 c0000201 0050")),
        ("[2001:db8::1]:443", bytes.fromhex("05 01 00 04 20010db8000000000000000000000001 01bb")),
        ("example.com:22", b"\x05\x01\x00\x03\x0bexample.com\x00\x16"),
    ],
)
def test_requests_are_those_of_rfc_1928(target: str, request_bytes: bytes) -> None:
    assert encode_request(Target.parse(target)) == request_bytes


@pytest.mark.parametrize(
    "reply",
    [
        bytes.fromhex("05 00 00 01 00000000 0000"),
        bytes.fromhex("05 00 00 04 00000000000000000000000000000000 0000"),
        b"\x05\x00\x00\x03\x04here\x00\x00",
    ],
)
async def test_the_stream_begins_right_after_the_reply(reply: bytes) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        assert await receive_exactly(stream, 3) == b"\x05\x01\x00"
        await stream.send_all(b"\x05\x00")
        await receive_exactly(stream, 10)
        for byte in reply + b"greeting":
            await stream.send_all(bytes([byte]))

    async with proxy(serve) as address, await connect_through(address, "192.0.2.1:80") as stream:
        assert await receive_exactly(stream, 8) == b"greeting"


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([b"\x05\xff"], "credentials"),
        ([b"HTTP/1.1 400"], "another protocol"),
        ([b"\x05\x00", bytes.fromhex("05 05 00 01 00000000 0000")], "connection refused"),
        ([b"\x05\x00", bytes.fromhex("05 63 00 01 00000000 0000")], "code 99"),
        ([b"\x05\x00", b"\x05\x00"], "closed"),
        ([b""], "closed"),
    ],
)
async def test_refusals_say_what_the_proxy_answered(answers: list[bytes], says: str) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        for answer in answers:
            await stream.receive_some()
            await stream.send_all(answer)
        await stream.send_eof()
        while await stream.receive_some():
            pass

    async with proxy(serve) as address:
        with pytest.raises(SocksRefusedError, match=says):
            await connect_through(address, "192.0.2.1:80")

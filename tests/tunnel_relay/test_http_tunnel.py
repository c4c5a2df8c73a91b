from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.lowlevel

from tunnel_relay.background import open_background
from tunnel_relay.errors import WebSocketError
from tunnel_relay.http_tunnel import open_http_stream

OK = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"


@asynccontextmanager
async def proxy(answer: bytes, requests: list[bytes], *, pieces: int = 1) -> AsyncGenerator[str]:
    """A proxy that gives *answer* to whatever it is asked, and then echoes; yields ``HOST:PORT``."""

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        requests.append(head)
        for start in range(0, len(answer), -(-len(answer) // pieces) or 1):
            await stream.send_all(answer[start : start + -(-len(answer) // pieces)])
            await trio.lowlevel.checkpoint()
        if answer:
            async for data in stream:
                await stream.send_all(data)

    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        host, port = listeners[0].socket.getsockname()[:2]
        yield f"{host}:{port}"


@pytest.mark.parametrize("pieces", [1, 5])
async def test_a_proxy_is_asked_to_connect(pieces: int) -> None:
    requests: list[bytes] = []
    answer = b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"early"
    async with (
        proxy(answer, requests, pieces=pieces) as address,
        await open_http_stream("ssm.example", 443, f"http://me:p%40ss@{address}") as stream,
    ):
        received = b""
        while len(received) < 5:
            received += await stream.receive_some(3)
        assert received == b"early"
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
    (request,) = requests
    assert request.startswith(b"CONNECT ssm.example:443 HTTP/1.1\r\n")
    assert b"Basic " + base64.b64encode(b"me:p@ss") in request


async def test_an_ipv6_host_is_bracketed_and_no_credentials_are_made_up() -> None:
    requests: list[bytes] = []
    async with proxy(OK, requests) as address:
        await (await open_http_stream("2001:db8::1", 443, address)).aclose()
    assert requests[0].startswith(b"CONNECT [2001:db8::1]:443 ")
    assert b"Authorization" not in requests[0]


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            "CONNECT with HTTP status 407",
        ),
        (b"SSH-2.0-x\r\n\r\n", "did not answer as an HTTP proxy"),
        (b"", "hung up|did not answer"),
    ],
)
async def test_a_proxy_that_refuses_is_named(answer: bytes, match: str) -> None:
    async with proxy(answer, []) as address:
        with pytest.raises(WebSocketError, match=match) as caught:
            await open_http_stream("ssm.example", 443, f"http://user:secret@{address}")
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://proxy:1",
        "socks5://proxy:1",
        "http://",
        "http://proxy:3128 ",
        "http://proxy:port",
        "http://proxy:99999",
        "http://me:secret@[::1:3128",
    ],
)
async def test_a_proxy_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(WebSocketError, match="not http://HOST:PORT") as caught:
        await open_http_stream("ssm.example", 443, url)
    assert "secret" not in str(caught.value)


async def test_what_a_proxy_cannot_be_asked_for_is_told() -> None:
    async with proxy(OK, []) as address:
        with pytest.raises(WebSocketError, match="cannot be asked for"):
            await open_http_stream("a\nb", 443, f"http://me:secret@{address}")


async def test_what_can_be_no_name_is_told() -> None:
    with pytest.raises(WebSocketError, match=r"the HTTP proxy a\.\.b is no name"):
        await open_http_stream("ssm.example", 443, "http://a..b:3128")


async def test_who_does_not_answer_is_named() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    with pytest.raises(WebSocketError, match=rf"127.0.0.1, port {port}"):
        await open_http_stream("127.0.0.1", port, None)
    with pytest.raises(WebSocketError, match=r"the HTTP proxy 127.0.0.1"):
        await open_http_stream("x", 443, f"http://127.0.0.1:{port}")

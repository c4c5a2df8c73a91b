from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Ping, Request

from tests.support.relay_tokens import make_certificate
from tests.support.websockets import open_websocket_pair
from tunnel_relay.background import open_background
from tunnel_relay.errors import WebSocketClosedError, WebSocketError, WebSocketRejectedError
from tunnel_relay.tls import server_tls
from tunnel_relay.websocket import (
    MAX_INBOX,
    WebSocket,
    accept_websocket,
    open_websocket,
    printable,
    request_websocket,
)
from tunnel_relay.wsproto_connection import MAX_MESSAGE

Handler = Callable[[WebSocket], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncGenerator[str]:
    """Serve connections on loopback for the block; yields ``HOST:PORT``."""
    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        host, port = listeners[0].socket.getsockname()[:2]
        yield f"{host}:{port}"


@asynccontextmanager
async def connected(handler: Handler) -> AsyncGenerator[WebSocket]:
    async def serve(stream: trio.SocketStream) -> None:
        try:
            async with accept_websocket(stream) as websocket:
                await handler(websocket)
        except WebSocketError:
            return

    async with serving(serve) as address, open_websocket(f"ws://{address}/path?query=1") as websocket:
        yield websocket


async def echo(websocket: WebSocket) -> None:
    while True:
        message = await websocket.receive()
        if isinstance(message, str):
            await websocket.send_text(message)
        else:
            await websocket.send_binary(message)


async def test_messages_of_all_sizes_come_back() -> None:
    async with connected(echo) as websocket:
        for size in (0, 1, 125, 126, 65535, 65536, 300_000):
            await websocket.send_binary(os.urandom(size) if size else b"")
            assert len(await websocket.receive()) == size
        await websocket.send_text("grüße")
        assert await websocket.receive() == "grüße"


async def test_many_messages_go_in_one_piece_and_keep_their_order() -> None:
    messages = [bytes([index]) * index for index in range(200)]
    async with connected(echo) as websocket:
        await websocket.send_many(messages)
        found: list[str | bytes] = []
        while len(found) < len(messages):
            found += await websocket.receive_many()
        assert found == messages


async def test_the_server_learns_the_path() -> None:
    paths: list[str] = []

    async def note(websocket: WebSocket) -> None:
        paths.append(websocket.path)

    async with connected(note) as websocket:
        with pytest.raises(WebSocketClosedError):
            await websocket.receive()
    assert paths == ["/path?query=1"]


async def test_what_came_before_the_close_is_read_first() -> None:
    async def last_words(websocket: WebSocket) -> None:
        await websocket.send_many([b"a", b"b"])
        await websocket.aclose(1003, "no\x1b token")

    async with connected(last_words) as websocket:
        assert [await websocket.receive(), await websocket.receive()] == [b"a", b"b"]
        with pytest.raises(WebSocketClosedError, match="1003: no  token") as caught:
            await websocket.receive()
        assert (caught.value.code, caught.value.reason) == (1003, "no  token")
        with pytest.raises(WebSocketClosedError):
            await websocket.send_binary(b"x")
        with pytest.raises(WebSocketClosedError):
            await websocket.send_text("x")
        with pytest.raises(WebSocketClosedError):
            await websocket.ping()


async def test_pings_are_answered_and_end_with_the_websocket() -> None:
    release = trio.Event()

    async def wait(_websocket: WebSocket) -> None:
        await release.wait()

    async with connected(wait) as websocket:
        await websocket.ping(b"payload")
        await websocket.ping()

    async def mute(stream: trio.SocketStream) -> None:
        """Accept, and then read without answering until told to go."""
        peer = WSConnection(ConnectionType.SERVER)
        while True:
            data = await stream.receive_some()
            if not data:
                return
            peer.receive_data(bytes(data))
            for event in peer.events():
                if isinstance(event, Request):
                    await stream.send_all(peer.send(AcceptConnection()))
                elif isinstance(event, Ping):
                    return

    async with serving(mute) as address, open_websocket(f"ws://{address}/") as websocket:
        with pytest.raises(WebSocketClosedError, match="1006"):
            await websocket.ping()


async def test_a_reader_that_stalls_holds_its_peer_up_and_can_still_close() -> None:
    sent = 0

    async def flood(websocket: WebSocket) -> None:
        nonlocal sent
        while True:
            await websocket.send_binary(bytes(60_000))
            sent += 60_000

    async with connected(flood):
        # It would never be blocked if the reader did not hold it up.
        with trio.fail_after(10):
            await wait_all_tasks_blocked()
        assert 0 < sent < MAX_INBOX + 20_000_000
        start = trio.current_time()
    assert trio.current_time() - start < 3


async def test_gathering_reads_finds_more_in_each(autojump_clock: MockClock) -> None:
    async def trickle(websocket: WebSocket) -> None:
        while True:
            await websocket.send_binary(b"x")
            await trio.sleep(0.001)

    async with connected(trickle) as websocket:
        websocket.gather(0.05)
        sizes = [len(await websocket.receive_many()) for _ in range(6)]
    assert max(sizes) > 5


async def test_a_refusal_says_why_and_when_to_ask_again() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        head = "HTTP/1.1 429 Too Many\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 7\r\n"
        await stream.send_all(f"{head}Content-Length: 10\r\n\r\nslow \x07down".encode())

    async with serving(refuse) as address:
        with pytest.raises(WebSocketRejectedError, match="429: slow  down") as caught:
            async with open_websocket(f"ws://{address}/"):
                pass
        assert (caught.value.detail, caught.value.retry_after) == ("slow  down", 7.0)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "HTTP status 403"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP status 200"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "127.0.0.1"),
        (b"", "hung up"),
    ],
)
async def test_a_server_that_does_not_upgrade_is_named(answer: bytes, match: str) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    async with serving(refuse) as address:
        with pytest.raises(WebSocketError, match=match) as caught:
            async with open_websocket(f"ws://{address}/"):
                pass
        if answer.startswith(b"HTTP/1.1 403"):
            assert isinstance(caught.value, WebSocketRejectedError)
            assert caught.value.status == 403


@pytest.mark.parametrize("url", ["http://x/", "ws:///path", "nonsense"])
async def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(WebSocketError, match="not a WebSocket URL"):
        async with open_websocket(url):
            pass


async def test_tls_is_checked() -> None:
    async def plain(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"not TLS at all, whatever you say")

    async with serving(plain) as address:
        with pytest.raises(WebSocketError, match=r"^127\.0\.0\.1: what listens there does not speak TLS"):
            async with open_websocket(f"wss://{address}/", ssl_context=ssl.create_default_context()):
                pass


async def test_what_cannot_be_sent_is_not_told() -> None:
    async def read(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with serving(read) as address:
        with pytest.raises(WebSocketError, match="cannot be said in HTTP") as caught:
            async with open_websocket(f"ws://{address}/", headers=[("Authorization", "Bearer eyJ\nx")]):
                pass
    assert "eyJ" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_who_is_not_believed_is_told_of() -> None:
    context = make_certificate().server_context()

    async def serve(stream: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await server_tls(stream, context).do_handshake()

    async with serving(serve) as address:
        with pytest.raises(WebSocketError, match=r"its certificate is not believed: self-signed .* with ca"):
            async with open_websocket(f"wss://{address}/"):
                pass


async def test_a_head_that_was_read_already_is_replayed(autojump_clock: MockClock) -> None:
    client = WSConnection(ConnectionType.CLIENT)
    request = client.send(Request(host="x", target="/p"))
    for cut in (0, 1, len(request) - 1, len(request)):
        near, far = memory_stream_pair()
        client = WSConnection(ConnectionType.CLIENT)
        request = client.send(Request(host="x", target="/p"))
        async with open_background() as nursery:

            async def serve(stream: trio.abc.Stream, initial: bytes) -> None:
                async with accept_websocket(stream, initial=initial) as websocket:
                    await websocket.send_binary(await websocket.receive() + b"!")  # type: ignore[operator]

            nursery.start_soon(serve, far, request[:cut])
            if cut < len(request):
                await near.send_all(request[cut:])
            client.receive_data(bytes(await near.receive_some()))
            assert list(client.events())
            await near.send_all(client.send(BytesMessage(data=b"hi")))
            client.receive_data(bytes(await near.receive_some()))
            assert [event.data for event in client.events() if isinstance(event, BytesMessage)] == [b"hi!"]


async def test_a_client_that_wants_something_else_is_an_error(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    await near.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(WebSocketError):
        async with accept_websocket(far):
            pass
    near, far = memory_stream_pair()
    await near.aclose()
    with pytest.raises(WebSocketError):
        async with accept_websocket(far):
            pass


async def test_both_ends_agree_on_a_subprotocol(autojump_clock: MockClock) -> None:
    async with open_websocket_pair("sproxy-relay.v1") as (near, far):
        await near.send_binary(b"hello")
        assert await far.receive() == b"hello"


@pytest.mark.parametrize("offered", [None, "chat"])
async def test_who_speaks_something_else_is_left(autojump_clock: MockClock, offered: str | None) -> None:
    near, far = memory_stream_pair()
    async with open_background() as nursery:

        async def serve() -> None:
            with pytest.raises(WebSocketError, match="does not speak v1"):
                async with accept_websocket(far, subprotocol="v1"):
                    pass

        nursery.start_soon(serve)
        with pytest.raises(WebSocketRejectedError, match="426"):
            async with request_websocket(near, "relay.example", subprotocol=offered):
                pass


async def test_a_server_that_does_not_choose_is_left(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    async with open_background() as nursery:

        async def serve() -> None:
            async with accept_websocket(far):
                await trio.sleep_forever()

        nursery.start_soon(serve)
        with pytest.raises(WebSocketError, match=r"relay\.example does not speak v1"):
            async with request_websocket(near, "relay.example", subprotocol="v1"):
                pass
        nursery.cancel_scope.cancel()


async def test_a_message_that_is_too_long_closes_with_1009() -> None:
    async def shout(websocket: WebSocket) -> None:
        await websocket.send_binary(bytes(MAX_MESSAGE + 1))
        await websocket.receive()

    async with connected(shout) as websocket:
        with pytest.raises(WebSocketClosedError, match="1009"):
            await websocket.receive()


def test_what_a_peer_says_is_fit_for_a_terminal() -> None:
    assert printable("a\x1b[31mb\nc") == "a [31mb c"
    assert len(printable("x" * 1000)) == 200


@pytest.mark.parametrize(
    "header", [b"Host: r\xe9lay", b"Host: xn--\x7f", b"Host: xn--0", b"Sec-WebSocket-Protocol: v\xb9"]
)
async def test_headers_that_cannot_be_decoded_are_an_error(header: bytes) -> None:
    lines = [
        b"GET / HTTP/1.1",
        *([b"Host: relay"] if not header.startswith(b"Host") else []),
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        header,
    ]
    near, far = memory_stream_pair()
    await near.send_all(b"".join(line + b"\r\n" for line in [*lines, b""]))
    with pytest.raises(WebSocketError, match="the client: "), trio.fail_after(20):
        async with accept_websocket(far):
            pytest.fail("it was accepted")

"""Request heads: whole, byte by byte, too long, and none."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_one_way_pair

from tunnel_relay.server.heads import MAX_HEAD, Head, HeadError, read_head, turn_away

HEAD = (
    b"GET /api/tunnel/connect?agent=nas HTTP/1.1\r\nHost: relay\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: WebSocket\r\nSec-WebSocket-Protocol: other, sproxy-relay.v1\r\nX-Forwarded-For: 1.2.3.4\r\n"
    b"X-Forwarded-For: 5.6.7.8\r\n\r\n"
)


async def read(*pieces: bytes) -> tuple[Head, bytes]:
    near, far = memory_stream_one_way_pair()

    async def send() -> None:
        for piece in pieces:
            await near.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        await near.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            return await read_head(far)
        except HeadError as exc:
            failure = exc
    raise failure


@pytest.mark.parametrize("pieces", [(HEAD,), tuple(bytes([byte]) for byte in HEAD)])
async def test_a_head(pieces: tuple[bytes, ...]) -> None:
    head, data = await read(*pieces)
    assert (head.method, head.path, head.query) == ("GET", "/api/tunnel/connect", "agent=nas")
    assert head.headers["x-forwarded-for"] == "1.2.3.4, 5.6.7.8"
    assert head.asks_for_websocket()
    assert head.subprotocols() == ["other", "sproxy-relay.v1"]
    assert data == HEAD


async def test_what_came_with_it_is_kept() -> None:
    head, data = await read(HEAD + b"\x82\x00")
    assert head.method == "GET"
    assert data == HEAD + b"\x82\x00"


async def test_a_page_is_no_websocket() -> None:
    head, _ = await read(b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\n\r\n")
    assert not head.asks_for_websocket()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: relay\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD, 431),
        (b"GET / HTTP/1.1\r\nHost: relay\r\nX: \xe9\r\n\r\n", 400),
        (b"", 0),
    ],
)
async def test_what_is_no_head(data: bytes, status: int) -> None:
    with pytest.raises(HeadError) as caught:
        await read(data)
    assert caught.value.status == status


def test_an_answer() -> None:
    answer = turn_away(429, "wait", {"Retry-After": "3"}).decode()
    assert answer.startswith("HTTP/1.1 429 Too Many Requests\r\n")
    assert "\r\nContent-Length: 5\r\n" in answer
    assert "\r\nConnection: close\r\n" in answer
    assert answer.endswith("\r\nRetry-After: 3\r\n\r\nwait\n")

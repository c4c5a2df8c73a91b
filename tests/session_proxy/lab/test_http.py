from __future__ import annotations

import pytest
import trio
import trio.testing

from session_proxy.lab import http
from session_proxy.lab.http import (
    BodyTooLargeError,
    Handler,
    HttpConnection,
    LabHttpError,
    Request,
    serve_connection,
)

PUT = b"PUT /here HTTP/1.1\r\nHost: lab\r\nContent-Length: 5\r\n\r\nhello"


async def converse(sent: bytes, step: int) -> bytes:
    """Answer with the method, path and body of each request; return all that the client reads."""

    async def handler(connection: HttpConnection, request: Request) -> None:
        body = await connection.read_body()
        await connection.respond(200, f"{request.method} {request.path} {body!r}".encode())

    ours, theirs = trio.testing.memory_stream_pair()
    answer = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_and_close, handler, theirs)
        for start in range(0, len(sent), step):
            await ours.send_all(sent[start : start + step])
            await trio.testing.wait_all_tasks_blocked()
        await ours.send_eof()
        async for data in ours:
            answer += data
    return bytes(answer)


async def serve_and_close(handler: Handler, stream: trio.abc.Stream) -> None:
    await serve_connection(handler, stream)
    await stream.aclose()


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_requests_follow_one_another_however_the_bytes_are_cut(step: int) -> None:
    answer = await converse(PUT + b"HEAD / HTTP/1.1\r\nHost: lab\r\n\r\n" + PUT, step)

    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.count(b"PUT /here b'hello'") == 2
    assert b"HEAD / b''" not in answer


async def test_a_client_that_waits_is_told_to_continue() -> None:
    head, _, body = PUT.partition(b"\r\n\r\n")
    waiting = head + b"\r\nExpect: 100-continue\r\n\r\n"
    answer = await converse(waiting + body, len(waiting))

    assert answer.startswith(b"HTTP/1.1 100 ")
    assert b"PUT /here b'hello'" in answer


@pytest.mark.parametrize("sent", [b"\x16\x03\x01", PUT[:-2], b"nonsense\r\n\r\n", b""])
async def test_broken_http_ends_the_connection_quietly(sent: bytes) -> None:
    assert await converse(sent, 1000) == b""


async def test_a_request_to_close_is_heeded() -> None:
    answer = await converse(PUT.replace(b"Host", b"Connection: close\r\nHost") + PUT, 1000)

    assert answer.count(b"HTTP/1.1 200") == 1


async def test_a_small_body_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_BODY", 4)
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(PUT)
    connection = HttpConnection(theirs)
    await connection.next_request()

    with pytest.raises(BodyTooLargeError):
        await connection.read_body()


async def test_what_was_received_can_be_handed_to_the_protocol_that_takes_over() -> None:
    upgrade = b"GET /ws HTTP/1.1\r\nHost: lab\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(PUT + upgrade + b"frame")
    connection = HttpConnection(theirs)
    assert await connection.next_request() is not None
    await connection.read_body()
    await connection.respond(200)
    request = await connection.next_request()

    assert request is not None
    assert request.upgrades_to_websocket
    await connection.switch_protocols(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert connection.trailing_data == b"frame"


async def test_a_client_that_leaves_during_the_answer_ends_the_connection() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(PUT)
    connection = HttpConnection(theirs)
    await connection.next_request()
    await ours.aclose()

    with pytest.raises(LabHttpError):
        await connection.respond(200, b"late")

"""The operators' HTTP server: answers, bounds, and what rude clients get."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from session_proxy.observability.http import (
    MAX_BODY,
    MAX_CONNECTIONS,
    MAX_HEAD,
    Handler,
    HttpAnswer,
    HttpLimits,
    HttpRequest,
    serve_http,
    serve_http_stream,
)


async def echo(request: HttpRequest) -> HttpAnswer:
    return HttpAnswer.text(f"{request.method} {request.path} {request.query} {request.body.decode()}")


async def slow(_request: HttpRequest) -> HttpAnswer:
    await trio.sleep(3600)
    raise AssertionError


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/echo"): echo,
    ("POST", "/echo"): echo,
    ("POST", "/only"): echo,
    ("GET", "/slow"): slow,
}

GET = b"GET /echo?a=1 HTTP/1.1\r\nHost: here\r\n\r\n"
LAST = b"GET /echo HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


async def exchange(*pieces: bytes, once: bool = False) -> bytes:
    """Return everything that a server says to a client that sends *pieces*."""
    near, far = trio.testing.memory_stream_pair()

    async def serve() -> None:
        async with far:
            await serve_http_stream(ROUTES, far, once=once)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        for piece in pieces:
            await near.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        await near.send_eof()
        return await read_all(near)
    raise AssertionError


async def test_a_request_is_answered_by_its_route() -> None:
    answer = await exchange(GET)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Cache-Control: no-store\r\n" in answer
    assert answer.endswith(b"\r\n\r\nGET /echo a=1 \n")


async def test_a_request_in_single_bytes_is_the_same_request() -> None:
    bytewise = await exchange(*(bytes([byte]) for byte in GET))

    assert bytewise.endswith(b"GET /echo a=1 \n")


async def test_a_client_may_be_answered_once() -> None:
    answer = await exchange(GET + GET, once=True)

    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"\r\nConnection: close\r\n" in answer


async def test_requests_follow_each_other_on_one_connection() -> None:
    answer = await exchange(GET + GET, LAST)

    assert answer.count(b"HTTP/1.1 200 OK") == 3


async def test_a_body_reaches_its_handler() -> None:
    answer = await exchange(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab", b"c")

    assert answer.endswith(b"POST /echo  abc\n")


async def test_a_client_that_waits_for_continue_gets_it() -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"

    answer = await exchange(head, b"ok")

    assert answer.startswith(b"HTTP/1.1 100 ")
    assert answer.endswith(b"POST /echo  ok\n")


async def test_head_is_get_without_a_body() -> None:
    answer = await exchange(b"HEAD /echo HTTP/1.1\r\nHost: h\r\n\r\n")

    assert b"Content-Length: 13\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status", "says"),
    [
        (b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n", 404, b"there is /echo /only /slow"),
        (b"DELETE /echo HTTP/1.1\r\nHost: h\r\n\r\n", 405, b"Allow: GET, POST"),
        (b"GET /only HTTP/1.1\r\nHost: h\r\n\r\n", 405, b"Allow: POST"),
        (b"\x05\x01\x00 SOCKS\r\n\r\n", 400, b"Connection: close"),
        (b"GET /echo HTTP/1.1\r\n\r\n", 400, b"Host"),
        (b"GET /" + b"x" * 2 * MAX_HEAD + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431, b""),
        (
            b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1)
            + b"x" * (MAX_BODY + 1),
            413,
            b"too large",
        ),
    ],
)
async def test_a_wrong_request_is_told_why(request_bytes: bytes, status: int, says: bytes) -> None:
    answer = await exchange(request_bytes)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert says in answer
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("pieces", [(), (b"",), (b"GET /ec",), (b"POST /echo HTTP/1.1\r\nHost: h\r\n",)])
async def test_a_client_may_leave_at_any_time(pieces: tuple[bytes, ...]) -> None:
    answer = await exchange(*pieces)

    assert answer in {b"", answer if b" 400 " in answer else b""}


async def test_a_client_that_says_nothing_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    await serve_http_stream(ROUTES, far, limits=HttpLimits(idle=60))
    assert trio.current_time() == pytest.approx(60)

    await near.send_all(b"GET /echo HTTP/1.1\r\n")
    await serve_http_stream(ROUTES, far, limits=HttpLimits(request=10))
    assert trio.current_time() == pytest.approx(70)


async def test_a_handler_has_its_time_and_no_more(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    await near.send_all(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")

    await serve_http_stream(ROUTES, far, limits=HttpLimits(answer=5))

    assert trio.current_time() == pytest.approx(5)


async def test_a_client_that_does_not_read_holds_nothing_up(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.lockstep_stream_pair()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, GET)
        await serve_http_stream(ROUTES, far, limits=HttpLimits(answer=5))

    assert trio.current_time() == pytest.approx(5)


async def test_the_server_answers_over_tcp_and_limits_its_clients() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(partial(serve_http, ROUTES, listeners))
        clients = [
            await trio.testing.open_stream_to_socket_listener(listeners[0]) for _ in range(MAX_CONNECTIONS)
        ]
        for client in clients:
            await client.send_all(GET)
            assert b"200 OK" in await client.receive_some(4096)

        async with await trio.testing.open_stream_to_socket_listener(listeners[0]) as one_too_many:
            assert await one_too_many.receive_some() == b""

        await clients.pop().aclose()
        await trio.testing.wait_all_tasks_blocked()
        async with await trio.testing.open_stream_to_socket_listener(listeners[0]) as next_one:
            await next_one.send_all(LAST)
            assert b"200 OK" in await read_all(next_one)
        for client in clients:
            await client.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [("application/json", True), ("text/html, application/json;q=0.9", True), ("*/*", False)],
)
def test_json_is_for_those_who_name_it(accept: str, wanted: bool) -> None:
    request = HttpRequest(method="GET", path="/", headers={"accept": accept})

    assert request.accepts_json() is wanted


def test_an_answer_in_json_says_so() -> None:
    answer = HttpAnswer.json({"a": [1]}, 503)

    assert (answer.status, answer.body, answer.content_type) == (503, b'{"a": [1]}\n', "application/json")

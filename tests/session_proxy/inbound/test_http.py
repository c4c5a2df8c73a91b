from __future__ import annotations

import base64

import pytest
import trio
import trio.testing

from session_proxy.errors import (
    DialError,
    DialTimeoutError,
    NotAllowedError,
    RefusedError,
    ResolutionError,
    TransportDownError,
    UnreachableError,
)
from session_proxy.events import ConnectionClosed
from session_proxy.inbound.client import serve_client
from session_proxy.profile.model import Limits
from session_proxy.protocol.http_connect import ESTABLISHED
from session_proxy.target import Target
from tests.support.doors import AUTH, FakeDialer, open_door, open_inner_door
from tests.support.sockets import LOOPBACK, echo, open_server, read_all, read_exactly, stream_pair

EXAMPLE = Target("example.com", 80)
CREDENTIALS = b"Proxy-Authorization: Basic " + base64.b64encode(b"user:secret") + b"\r\n"
WRONG = b"Proxy-Authorization: Basic " + base64.b64encode(b"user:wrong") + b"\r\n"


def connect(target: str, *, headers: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"CONNECT %s HTTP/%s\r\nHost: x\r\n%s\r\n" % (target.encode(), version, headers)


@pytest.mark.parametrize("step", [1, 5, 1000])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_tunnel_carries_a_connection(step: int, version: bytes) -> None:
    async with open_server(echo) as port, open_door() as door:
        async with await door.connect() as client:
            data = connect(f"{LOOPBACK}:{port}", version=version) + b"early"
            for at in range(0, len(data), step):
                await client.send_all(data[at : at + step])
            await client.send_eof()
            assert await read_all(client) == ESTABLISHED + b"early"
        closed = await door.events.closed()
    assert (closed.protocol, closed.outcome, closed.sent, closed.received) == ("http", "ok", 5, 5)


async def test_a_tunnel_to_ipv6() -> None:
    async with open_server(echo, "::1") as port, open_door() as door, await door.connect() as client:
        await client.send_all(connect(f"[::1]:{port}"))
        assert await read_exactly(client, len(ESTABLISHED)) == ESTABLISHED


@pytest.mark.parametrize(
    ("failure", "status", "outcome"),
    [
        (RefusedError("no: refused"), 502, "refused"),
        (NotAllowedError("no: rule"), 403, "not-allowed"),
        (UnreachableError("no: way"), 502, "unreachable"),
        (ResolutionError("no: name"), 502, "resolution"),
        (DialTimeoutError("no: answer"), 504, "timeout"),
        (TransportDownError("no: down"), 502, "transport-down"),
    ],
)
async def test_each_failure_has_its_status_and_says_why(
    failure: DialError, status: int, outcome: str
) -> None:
    async with open_door(FakeDialer({EXAMPLE: failure})) as door:
        requests = [
            connect("example.com:80"),
            b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        ]
        for count, request in enumerate(requests, 1):
            async with await door.connect() as client:
                await client.send_all(request)
                answer = await read_all(client)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"Content-Type: text/plain" in head
            assert body == f"session-proxy: {failure}\n".encode()
            assert (await door.events.closed(count)).outcome == outcome


@pytest.mark.parametrize("headers", [b"", WRONG, b"Proxy-Authorization: Bearer abc\r\n"])
@pytest.mark.parametrize(
    "request_", [b"CONNECT a:1 HTTP/1.1", b"GET http://a/ HTTP/1.1", b"HEAD http://a/ HTTP/1.1"]
)
async def test_credentials_are_asked_for(headers: bytes, request_: bytes) -> None:
    dialer = FakeDialer()
    async with open_door(dialer, auth=AUTH) as door:
        async with await door.connect() as client:
            await client.send_all(request_ + b"\r\nHost: a\r\n" + headers + b"\r\n")
            answer = await read_all(client)
        closed = await door.events.closed()
    assert answer.startswith(b"HTTP/1.1 407 ")
    assert b'\r\nProxy-Authenticate: Basic realm="session-proxy"\r\n' in answer
    assert answer.endswith(b"\r\n\r\n") == request_.startswith(b"HEAD")
    assert (closed.outcome, dialer.asked) == ("auth-failed", [])


async def test_the_right_credentials_open_a_tunnel() -> None:
    async with open_server(echo) as port, open_door(auth=AUTH) as door, await door.connect() as client:
        await client.send_all(connect(f"{LOOPBACK}:{port}", headers=CREDENTIALS))
        assert await read_exactly(client, len(ESTABLISHED)) == ESTABLISHED


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: proxy\r\n\r\n", 400),
        (b"GET https://example.com/ HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"nonsense\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_for_a_proxy_is_told_so(request_: bytes, status: int) -> None:
    async with open_door() as door:
        async with await door.connect() as client:
            await client.send_all(request_)
            answer = await read_all(client)
        closed = await door.events.closed()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    assert (closed.outcome, answer.count(b"\n")) == ("protocol-error", 7)


async def test_a_request_that_does_not_end_in_time_is_told_so(autojump_clock: trio.testing.MockClock) -> None:
    async with open_inner_door(limits=Limits(handshake=10)) as (door, events):
        with stream_pair() as (client, near):
            await client.send_all(b"CONNECT example.com:443 HTT")
            await serve_client(door, near, "somebody")
            assert (await read_all(client)).startswith(b"HTTP/1.1 408 ")
    assert events.of(ConnectionClosed)[0].outcome == "handshake-timeout"


async def test_a_client_that_leaves_before_its_request_is_whole() -> None:
    async with open_door() as door:
        async with await door.connect() as client:
            await client.send_all(b"CONNECT example.com:443 HTT")
        assert (await door.events.closed()).outcome == "protocol-error"

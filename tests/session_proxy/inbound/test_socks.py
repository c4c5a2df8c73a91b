"""Transcripts with the front door, as RFC 1928 and the SOCKS4 memoranda write them."""

from __future__ import annotations

import pytest
import trio

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
from session_proxy.profile.model import Limits
from session_proxy.target import Target
from tests.support.doors import AUTH, FakeDialer, open_door
from tests.support.sockets import LOOPBACK, echo, open_server, read_all, read_exactly

ANONYMOUS = b"\x05\x01\x00"
EXAMPLE = Target("example.com", 443)
CONNECT = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"
SUCCEEDED = b"\x05\x00\x00\x01" + bytes(6)


def to_loopback(port: int, head: bytes = b"\x05\x01\x00\x01") -> bytes:
    return head + bytes((127, 0, 0, 1)) + port.to_bytes(2, "big")


async def test_socks5_carries_a_connection() -> None:
    async with open_server(echo) as port, open_door() as door:
        async with await door.connect() as client:
            await client.send_all(ANONYMOUS)
            assert await read_exactly(client, 2) == b"\x05\x00"
            await client.send_all(to_loopback(port))
            assert await read_exactly(client, 10) == SUCCEEDED
            await client.send_all(b"hello")
            await client.send_eof()
            assert await read_all(client) == b"hello"
        closed = await door.events.closed()
    assert closed == ConnectionClosed(
        id=1,
        client=closed.client,
        protocol="socks5",
        target=Target(LOOPBACK, port),
        rule="routes[0]",
        upstream="direct",
        sent=5,
        received=5,
        duration=closed.duration,
        connect_duration=closed.connect_duration,
        outcome="ok",
    )


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_everything_at_once_is_the_same(step: int) -> None:
    async with open_server(echo) as port, open_door(auth=AUTH) as door:
        async with await door.connect() as client:
            data = b"\x05\x02\x00\x02" + b"\x01\x04user\x06secret" + to_loopback(port) + b"early"
            for at in range(0, len(data), step):
                await client.send_all(data[at : at + step])
            await client.send_eof()
            assert await read_all(client) == b"\x05\x02" + b"\x01\x00" + SUCCEEDED + b"early"
        assert (await door.events.closed()).outcome == "ok"


async def test_wrong_credentials_are_refused() -> None:
    async with open_door(auth=AUTH) as door:
        async with await door.connect() as client:
            await client.send_all(b"\x05\x01\x02" + b"\x01\x04user\x05wrong" + CONNECT)
            assert await read_all(client) == b"\x05\x02" + b"\x01\x01"
        closed = await door.events.closed()
    assert (closed.outcome, closed.target) == ("auth-failed", None)


async def test_a_client_without_credentials_is_refused_in_two_bytes() -> None:
    async with open_door(auth=AUTH) as door:
        async with await door.connect() as client:
            await client.send_all(ANONYMOUS)
            assert await read_all(client) == b"\x05\xff"
        closed = await door.events.closed()
    assert (closed.outcome, closed.detail) == ("auth-failed", "the client offers no username and password")


@pytest.mark.parametrize(
    ("failure", "code", "outcome"),
    [
        (RefusedError("x"), 5, "refused"),
        (NotAllowedError("x"), 2, "not-allowed"),
        (UnreachableError("x"), 3, "unreachable"),
        (ResolutionError("x"), 4, "resolution"),
        (DialTimeoutError("x"), 6, "timeout"),
        (TransportDownError("x"), 1, "transport-down"),
    ],
)
async def test_each_failure_has_its_code(failure: DialError, code: int, outcome: str) -> None:
    async with open_door(FakeDialer({EXAMPLE: failure})) as door:
        async with await door.connect() as client:
            await client.send_all(ANONYMOUS + CONNECT + b"unread")
            assert await read_all(client) == b"\x05\x00" + bytes((5, code, 0, 1)) + bytes(6)
        assert (await door.events.closed()).outcome == outcome
        async with await door.connect() as client:
            await client.send_all(b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00example.com\x00")
            assert await read_all(client) == b"\x00\x5b" + bytes(6)
        assert (await door.events.closed(2)).outcome == outcome


@pytest.mark.parametrize(
    "request_",
    [b"\x04\x01\x00\x50\x7f\x00\x00\x01me\x00", b"\x04\x01\x00\x50\x00\x00\x00\x01me\x00localhost\x00"],
    ids=["socks4", "socks4a"],
)
@pytest.mark.parametrize("step", [1, 1000])
async def test_socks4_carries_a_connection(request_: bytes, step: int) -> None:
    async with open_server(echo) as port, open_door() as door:
        async with await door.connect() as client:
            data = request_.replace(b"\x00\x50", port.to_bytes(2, "big"), 1) + b"early"
            for at in range(0, len(data), step):
                await client.send_all(data[at : at + step])
            await client.send_eof()
            assert await read_all(client) == b"\x00\x5a" + bytes(6) + b"early"
        closed = await door.events.closed()
        assert (closed.protocol, closed.outcome, closed.sent) == ("socks4", "ok", 5)


async def test_socks4_is_refused_where_there_is_a_password() -> None:
    dialer = FakeDialer()
    async with open_door(dialer, auth=AUTH) as door:
        async with await door.connect() as client:
            await client.send_all(b"\x04\x01\x00\x50\x7f\x00\x00\x01user\x00")
            assert await read_all(client) == b"\x00\x5d" + bytes(6)
        closed = await door.events.closed()
    assert (closed.outcome, dialer.asked) == ("auth-failed", [])
    assert "SOCKS5 or HTTP" in closed.detail


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (
            b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50",
            b"\x05\x00" + b"\x05\x07\x00\x01" + bytes(6),
        ),
        (b"\x05\x01\x00\x05\x01\x00\x09", b"\x05\x00" + b"\x05\x08\x00\x01" + bytes(6)),
        (b"\x05\x01\x00\x00", b"\x05\x00"),
        (b"\x04\x02\x00\x50\x7f\x00\x00\x01\x00", b"\x00\x5b" + bytes(6)),
    ],
)
async def test_nonsense_is_answered_and_ends(data: bytes, answer: bytes) -> None:
    async with open_door() as door:
        async with await door.connect() as client:
            await client.send_all(data)
            assert await read_all(client) == answer
        assert (await door.events.closed()).outcome == "protocol-error"


@pytest.mark.parametrize("data", [b"\x05", b"\x05\x01\x00\x05\x01", b"\x04\x01\x00"])
async def test_a_client_that_does_not_go_on_is_left(data: bytes) -> None:
    async with open_door(limits=Limits(handshake=0.1)) as door:
        async with await door.connect() as client:
            await client.send_all(data)
            begin = trio.current_time()
            await read_all(client)
            assert trio.current_time() - begin < 5
        closed = await door.events.closed()
    assert (closed.outcome, closed.detail) == ("handshake-timeout", "no complete request within 0.1 s")


@pytest.mark.parametrize("data", [b"\x05", b"\x05\x01\x00\x05\x01", b"\x04\x01\x00"])
async def test_a_client_that_hangs_up_has_broken_the_protocol(data: bytes) -> None:
    async with open_door() as door:
        async with await door.connect() as client:
            await client.send_all(data)
        closed = await door.events.closed()
    assert (closed.outcome, "hung up" in closed.detail) == ("protocol-error", True)


async def test_a_client_that_resets_is_told_apart() -> None:
    async with open_door() as door:
        client = await door.connect()
        await client.send_all(ANONYMOUS)
        assert await read_exactly(client, 2) == b"\x05\x00"
        client.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
        await client.aclose()
        assert (await door.events.closed()).outcome == "reset"

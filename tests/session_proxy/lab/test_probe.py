from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from session_proxy.lab import probe
from session_proxy.lab.targets import Targets, open_targets
from session_proxy.target import split_host_port


@asynccontextmanager
async def connected(address: str) -> AsyncGenerator[trio.SocketStream]:
    async with await trio.open_tcp_stream(*split_host_port(address)) as stream:
        yield stream


async def answered(answer: bytes) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Return a client's stream whose peer has already sent *answer* and closed."""
    client, server = trio.testing.memory_stream_pair()
    await server.send_all(answer)
    await server.send_eof()
    return client, server


@pytest.fixture
async def targets() -> AsyncGenerator[Targets]:
    async with open_targets() as opened:
        yield opened


async def test_the_page_is_fetched_and_compared(targets: Targets) -> None:
    async with connected(targets.http) as stream:
        assert await probe.fetch_page(stream) > 50


@pytest.mark.parametrize("length", [0, 1, 255, 1_000_003])
async def test_downloads_and_uploads_are_verified(targets: Targets, length: int) -> None:
    async with connected(targets.http) as stream:
        assert await probe.download(stream, length) == length
    async with connected(targets.http) as stream:
        assert await probe.upload(stream, length) == length


async def test_round_trips_are_timed(targets: Targets) -> None:
    async with connected(targets.echo) as stream:
        assert 0 < await probe.ping(stream, 5) < 1


async def test_a_wrong_byte_is_found() -> None:
    body = bytes(range(9)) + b"\x00"
    client, _server = await answered(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + body)
    with pytest.raises(probe.WrongAnswerError, match="wrong bytes"):
        await probe.download(client, 10)


async def test_a_short_download_is_found() -> None:
    client, _server = await answered(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\x00\x01\x02")
    with pytest.raises(probe.WrongAnswerError, match="ended after 3 of 10"):
        await probe.download(client, 10)


async def test_a_wrong_page_a_wrong_digest_and_a_wrong_echo_are_found() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    client, _server = await answered(answer)
    with pytest.raises(probe.WrongAnswerError, match="the page differs"):
        await probe.fetch_page(client)
    client, _server = await answered(answer)
    with pytest.raises(probe.WrongAnswerError, match="other bytes"):
        await probe.upload(client, 5)
    client, _server = await answered(bytes(64))
    with pytest.raises(probe.WrongAnswerError, match="the echo differs"):
        await probe.ping(client, 1)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "status is 502"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "5 bytes short"),
        (b"", "no HTTP server"),
    ],
)
async def test_what_is_no_answer_is_an_error(answer: bytes, says: str) -> None:
    client, _server = await answered(answer)
    with pytest.raises(probe.WrongAnswerError, match=says):
        await probe.fetch_page(client)


async def test_a_broken_connection_is_an_error() -> None:
    client, server = trio.testing.memory_stream_pair()
    await server.aclose()
    with pytest.raises(probe.WrongAnswerError, match="broke"):
        await probe.fetch_page(client)


async def test_an_echo_that_ends_is_an_error() -> None:
    client, _server = await answered(b"")
    with pytest.raises(probe.WrongAnswerError, match="closed"):
        await probe.ping(client, 1)

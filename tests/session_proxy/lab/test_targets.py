from __future__ import annotations

import hashlib
import socket
import tempfile
from pathlib import Path

import pytest
import trio
import trio.testing

from session_proxy.lab.http import HttpConnection, Request
from session_proxy.lab.listening import has_ipv6
from session_proxy.lab.targets import BLOCK, PAGE, answer, echo_stream, open_targets


async def curl(*arguments: str) -> bytes:
    done = await trio.run_process(["curl", "-sS", "--max-time", "20", *arguments], capture_stdout=True)
    return done.stdout


async def test_curl_gets_the_page_and_heads_it() -> None:
    async with open_targets() as targets:
        assert await curl(f"http://{targets.http}/") == PAGE
        head = await curl("-I", f"http://{targets.http}/bytes/12345678901")
        assert b"Content-Length: 12345678901\r\n" in head
        assert await curl("-o", "/dev/null", "-w", "%{http_code}", f"http://{targets.http}/x") == b"404"
        assert b"405" in await curl("-i", "-X", "DELETE", f"http://{targets.http}/")


@pytest.mark.parametrize("size", [0, 1, 255, 257, len(BLOCK), 3 * len(BLOCK) + 77])
async def test_bytes_come_in_their_pattern(size: int) -> None:
    async with open_targets() as targets:
        received = await curl(f"http://{targets.http}/bytes/{size}")

    assert received == (BLOCK * 4)[:size]


async def test_one_connection_serves_several_requests() -> None:
    async with open_targets() as targets:
        url = f"http://{targets.http}/bytes/3000000"
        out = await curl("-o", "/dev/null", "-o", "/dev/null", url, url, "-w", "%{num_connects}\n")

    assert out.split() == [b"1", b"0"]


async def test_what_is_put_is_hashed(tmp_path: Path) -> None:
    content = bytes(range(251)) * 20_000
    (tmp_path / "upload").write_bytes(content)
    async with open_targets() as targets:
        digest = await curl("-T", str(tmp_path / "upload"), f"http://{targets.http}/")
        chunked = await curl(
            "-T", str(tmp_path / "upload"), "-H", "Transfer-Encoding: chunked", f"http://{targets.http}/"
        )

    assert digest.decode() == hashlib.sha256(content).hexdigest() == chunked.decode()


async def test_a_stream_that_is_no_socket_gets_the_same_bytes() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    size = 2 * len(BLOCK) + 5
    received = bytearray()

    async def read() -> None:
        async for data in ours:
            received.extend(data)

    async with trio.open_nursery() as nursery:
        await ours.send_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
        nursery.start_soon(read)
        connection = HttpConnection(theirs)
        await connection.next_request()
        with tempfile.TemporaryFile() as unused:
            await answer(unused, connection, Request("GET", f"/bytes/{size}", {}))
        await theirs.aclose()

    head, _, body = bytes(received).partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % size in head
    assert body == (BLOCK * 3)[:size]


async def test_a_reader_that_leaves_harms_nobody() -> None:
    async with open_targets() as targets:
        host, _, port = targets.http.partition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(b"GET /bytes/99999999999 HTTP/1.1\r\nHost: lab\r\n\r\n")
        await stream.receive_some(1000)
        await stream.aclose()
        assert await curl(f"http://{targets.http}/") == PAGE


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_tcp_is_echoed_until_the_client_finishes(host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 here")
    async with open_targets() as targets:
        stream = await trio.open_tcp_stream(host, int(targets.echo.partition(":")[2]))
        async with stream:
            await stream.send_all(b"to and fro")
            await stream.send_eof()
            received = b"".join([data async for data in stream])

    assert received == b"to and fro"


async def test_datagrams_are_echoed_on_the_same_port() -> None:
    async with open_targets() as targets:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", int(targets.echo.partition(":")[2])))
            await sock.send(b"ping")
            assert await sock.recv(100) == b"ping"
            await sock.send(b"")
            assert await sock.recv(100) == b""


async def test_an_echo_to_nobody_ends_quietly() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    client = await trio.testing.open_stream_to_socket_listener(listener)
    server = await listener.accept()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    await client.aclose()
    await echo_stream(server)
    await server.aclose()
    await listener.aclose()

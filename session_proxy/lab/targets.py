"""Destinations to reach through a proxy: an HTTP target and an echo target.

The HTTP target answers ``GET /`` with a page, ``GET /bytes/N`` with N bytes (0, 1, …, 255 repeated) and
``PUT`` with the SHA-256 of what it was sent. The echo target answers bytes with themselves, on TCP (with
half-close) and, on the same port, on UDP.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import BinaryIO

import attrs
import trio

from session_proxy.lab.http import HttpConnection, LabHttpError, Request, serve_connection
from session_proxy.lab.listening import open_sockets

# One period of the pattern, often enough that a block is worth a system call.
BLOCK = bytes(range(256)) * 4096
PAGE = b"<!doctype html><title>session-proxy lab</title><p>You have reached the lab's HTTP target.</p>\n"
TEXT = [("Content-Type", "text/plain; charset=utf-8")]
HTML = [("Content-Type", "text/html; charset=utf-8")]
BINARY = [("Content-Type", "application/octet-stream")]
# A checkpoint for every so many bytes sent: trio's scheduler costs more than the system call.
BYTES_PER_CHECKPOINT = 8 * len(BLOCK)
ECHO_SIZE = 256 * 1024
DATAGRAM_SIZE = 65535


@attrs.frozen
class Targets:
    """The pair of targets that one transport is to reach, as ``HOST:PORT``."""

    http: str
    echo: str


@asynccontextmanager
async def open_targets() -> AsyncGenerator[Targets]:
    """Serve an HTTP and an echo target on free ports of loopback, for as long as the block lasts."""
    with tempfile.TemporaryFile() as pattern:
        pattern.write(BLOCK)
        pattern.flush()
        http = await open_sockets()
        echo = await open_sockets(udp=True)
        async with trio.open_nursery() as nursery:
            handler = functools.partial(serve_connection, functools.partial(answer, pattern))
            await nursery.start(functools.partial(trio.serve_listeners, handler, http.tcp))
            await nursery.start(functools.partial(trio.serve_listeners, echo_stream, echo.tcp))
            for sock in echo.udp:
                nursery.start_soon(echo_datagrams, sock)
            yield Targets(http.address, echo.address)
            nursery.cancel_scope.cancel()


async def answer(pattern: BinaryIO, connection: HttpConnection, request: Request) -> None:
    """Answer one request; *pattern* holds `BLOCK`. Raises `LabHttpError` when the client leaves."""
    path = request.path.partition("?")[0]
    if request.method in ("PUT", "POST"):
        digest = hashlib.sha256()
        while piece := await connection.receive_some():
            digest.update(piece)
        await connection.respond(200, digest.hexdigest().encode(), TEXT)
    elif request.method not in ("GET", "HEAD"):
        await connection.respond(405, b"GET, HEAD or PUT\n", [*TEXT, ("Allow", "GET, HEAD, PUT, POST")])
    elif path == "/":
        await connection.respond(200, PAGE, HTML)
    elif path.startswith("/bytes/") and path[7:].isascii() and path[7:].isdigit():
        await _send_pattern(pattern, connection, int(path[7:]))
    else:
        await connection.respond(404, b"try / or /bytes/N\n", TEXT)


async def _send_pattern(pattern: BinaryIO, connection: HttpConnection, length: int) -> None:
    await connection.start_response(200, length, BINARY)
    if connection.wants_body:
        try:
            if isinstance(connection.stream, trio.SocketStream):
                await _send_from_file(pattern, connection.stream.socket.fileno(), length)
            else:
                await _send_from_memory(connection.stream, length)
        except (OSError, trio.BrokenResourceError) as exc:
            raise LabHttpError("the client left") from exc
    connection.finish_response(length)


async def _send_from_file(pattern: BinaryIO, sock: int, length: int) -> None:
    # sendfile(2) from the page cache costs half the processor time of send(2).
    sent = unchecked = 0
    while sent < length:
        offset = sent % len(BLOCK)
        try:
            count = os.sendfile(sock, pattern.fileno(), offset, min(length - sent, len(BLOCK) - offset))
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            continue
        sent += count
        unchecked += count
        if unchecked >= BYTES_PER_CHECKPOINT:
            unchecked = 0
            await trio.lowlevel.checkpoint()


async def _send_from_memory(stream: trio.abc.Stream, length: int) -> None:
    view = memoryview(BLOCK)
    for start in range(0, length, len(BLOCK)):
        await stream.send_all(view[: length - start])


async def echo_stream(stream: trio.SocketStream) -> None:
    """Send back what comes until the client has finished, then finish too."""
    try:
        while data := await stream.receive_some(ECHO_SIZE):
            await stream.send_all(data)
        await stream.send_eof()
    except trio.BrokenResourceError:
        return


async def echo_datagrams(sock: trio.socket.SocketType) -> None:
    """Send every datagram back to where it came from."""
    with sock:
        while True:
            data, sender = await sock.recvfrom(DATAGRAM_SIZE)
            try:
                await sock.sendto(data, sender)
            except OSError:
                continue  # an ICMP error of an earlier answer, or no room: datagrams may be lost

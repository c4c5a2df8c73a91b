from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tunnel_relay import health_check
from tunnel_relay.background import open_background
from tunnel_relay.health_check import is_healthy


@asynccontextmanager
async def answering(answer: bytes, asked: list[bytes] | None = None) -> AsyncGenerator[str]:
    async def serve(stream: trio.SocketStream) -> None:
        head = await stream.receive_some()
        if asked is not None:
            asked.append(bytes(head))
        await stream.send_all(answer)
        if not answer:
            await trio.sleep_forever()

    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 503 Draining\r\nContent-Length: 0\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"HTTP/1.1 200", False),
    ],
)
async def test_only_who_says_that_all_is_well_is_healthy(answer: bytes, healthy: bool) -> None:
    asked: list[bytes] = []
    async with answering(answer, asked) as url:
        assert await is_healthy(url) is healthy
    assert asked[0].startswith(b"GET /api/tunnel/health HTTP/1.1\r\n")


async def test_who_does_not_answer_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_check, "PATIENCE", 0.05)
    async with answering(b"") as url:
        assert not await is_healthy(url)
    assert not await is_healthy(url)


async def test_who_does_not_speak_tls_is_not_healthy() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n") as url:
        assert not await is_healthy(url.replace("ws:", "wss:"))

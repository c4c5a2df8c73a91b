"""Two ends of a WebSocket, over memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from trio.testing import memory_stream_pair

from tunnel_relay.background import open_background
from tunnel_relay.websocket import WebSocket, accept_websocket, request_websocket


@asynccontextmanager
async def open_websocket_pair(subprotocol: str | None = None) -> AsyncGenerator[tuple[WebSocket, WebSocket]]:
    """Yield a client's end and the server's."""
    near, far = memory_stream_pair()
    accepted: list[WebSocket] = []

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        async with accept_websocket(far, subprotocol=subprotocol) as websocket:
            accepted.append(websocket)
            task_status.started()
            await trio.sleep_forever()

    async with open_background() as nursery:
        served = trio.Event()

        async def start() -> None:
            await nursery.start(serve)
            served.set()

        nursery.start_soon(start)
        async with request_websocket(near, "relay.example", subprotocol=subprotocol) as websocket:
            await served.wait()
            yield websocket, accepted[0]
        nursery.cancel_scope.cancel()

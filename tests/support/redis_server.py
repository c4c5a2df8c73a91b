"""A Redis server of our own, on a port of this machine."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

REDIS_SERVER = shutil.which("redis-server")

needs_redis = pytest.mark.skipif(REDIS_SERVER is None, reason="redis-server is not installed")


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@attrs.define(eq=False)
class RedisServer:
    """A server that can be stopped, frozen, and started again, with nothing in it."""

    port: int = attrs.field(factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start it, and return when it answers."""
        argv = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        # It outlives no test: `open_redis` sees to that.
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
        while True:
            try:
                async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                    await stream.send_all(b"PING\r\n")
                    if await stream.receive_some():
                        return
            except OSError:
                assert self.process.poll() is None
            await trio.sleep(0.01)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self, *, frozen: bool = True) -> None:
        """Let it answer nothing for the moment."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)


@asynccontextmanager
async def open_redis() -> AsyncGenerator[RedisServer]:
    """Run a server for a block."""
    server = RedisServer()
    try:
        await server.start()
        yield server
    finally:
        server.stop()

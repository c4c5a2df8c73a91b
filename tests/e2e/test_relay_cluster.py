"""Two ``sproxy relay-server`` behind a TCP balancer, with a Redis: each is restarted under a download that goes on."""

from __future__ import annotations

import hashlib
import random
import signal
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import trio

from tests.support.balancer import Balancer, open_balancer
from tests.support.programs import Sproxy
from tests.support.redis_server import RedisServer, needs_redis, open_redis
from tests.support.relay_clients import open_agent, open_client
from tests.support.relay_cluster import echo
from tests.support.relay_daemon import start_relay_server, write_relay
from tests.support.relay_tokens import Certificate, make_certificate
from tests.support.sproxy import clean_environ
from tests.support.tunnels import eventually, open_destination
from tunnel_relay.client.reaching import Reaching
from tunnel_relay.policy.backoff import BackoffSettings
from tunnel_relay.policy.selector import SelectorSettings
from tunnel_relay.sessions import RelayStream

SECONDS = 150

# Servers end more often here than a client expects, who would rest for longer each time.
SELECTOR = SelectorSettings(backoff=BackoffSettings(first=0.3, factor=1.0))

# What is downloaded between two restarts, and how much of that has come when a server is stopped.
PART = 12 * 1024 * 1024
PIECE = 64 * 1024


@attrs.define(eq=False)
class Server:
    """One of the servers, over its lives."""

    folder: Path
    running: ExitStack = attrs.field(factory=ExitStack, init=False)
    sproxy: Sproxy = attrs.field(init=False)

    def start(self) -> None:
        env = clean_environ(self.folder)
        self.sproxy = self.running.enter_context(start_relay_server(self.folder / "relay.toml", env=env))

    def stop(self, signum: int) -> None:
        self.sproxy.stop(signum)
        self.running.close()


@contextmanager
def open_servers(tmp_path: Path, redis: RedisServer, certificate: Certificate) -> Generator[list[Server]]:
    servers: list[Server] = []
    with ExitStack() as stack:
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            certificate.write(folder)
            cluster = (
                f'[store]\nredis = "{redis.url}"\n[cluster]\nlisten = "127.0.0.1:0"\n'
                'certificate = "cert.pem"\nkey = "key.pem"\nca = "cert.pem"\n[limits]\ndrain = 5\n'
            )
            write_relay(folder, top='admin = { listen = "127.0.0.1:0" }', more=cluster)
            server = Server(folder)
            stack.callback(server.running.close)
            server.start()
            servers.append(server)
        yield servers


@attrs.define(eq=False)
class Download:
    """What is sent, part by part, and what has come of it."""

    parts: int
    sent: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    came: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    received: int = 0
    gates: list[trio.Event] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.gates = [trio.Event() for _ in range(self.parts)]

    async def send(self, stream: trio.SocketStream) -> None:
        rng = random.Random(1)
        for gate in self.gates:
            await gate.wait()
            for _ in range(PART // PIECE):
                piece = rng.randbytes(PIECE)
                self.sent.update(piece)
                await stream.send_all(piece)
        await stream.send_eof()

    async def receive(self, stream: RelayStream) -> None:
        while piece := await stream.receive_some():
            self.came.update(piece)
            self.received += len(piece)


async def restart(server: Server, position: int, balancer: Balancer, signum: int) -> None:
    """End a server and start it anew, at another port; the balancer is told."""
    await trio.to_thread.run_sync(server.stop, signum)
    await trio.to_thread.run_sync(server.start)
    balancer.servers[position] = server.sproxy.address


async def typed(reaching: Reaching, over: trio.Event) -> int:
    """Type a line now and then, on one stream; return how many were echoed."""
    stream = reaching.open_stream("echo")
    await stream.wait_accepted()
    lines = 0
    async with stream:
        while not over.is_set():
            line = b"line %d\n" % lines
            await stream.send_all(line)
            echoed = b""
            while echoed != line:
                piece = await stream.receive_some()
                assert piece
                echoed += piece
            lines += 1
            await trio.sleep(0.02)
    return lines


@needs_redis
async def test_restarts_under_a_download(tmp_path: Path) -> None:
    deeds = [(0, signal.SIGTERM), (1, signal.SIGTERM), (0, signal.SIGKILL), (1, signal.SIGTERM)]
    download = Download(len(deeds) + 1)
    with trio.fail_after(SECONDS):
        async with open_redis() as redis:
            with open_servers(tmp_path, redis, make_certificate()) as servers:
                async with (
                    open_balancer(*(server.sproxy.address for server in servers)) as balancer,
                    open_destination(download.send) as file,
                    open_destination(echo) as line,
                    open_agent(f"ws://{balancer.address}", {"file": file, "echo": line}, selector=SELECTOR),
                    open_client(f"ws://{balancer.address}", agent="nas", selector=SELECTOR) as reaching,
                    trio.open_nursery() as nursery,
                ):
                    over, lines = trio.Event(), list[int]()

                    async def type_lines() -> None:
                        lines.append(await typed(reaching, over))

                    nursery.start_soon(type_lines)
                    stream = reaching.open_stream("file")
                    await stream.wait_accepted()
                    session = reaching.begin()
                    # The agent is at the other one.
                    assert any(server.sproxy.find("peer linked") for server in servers)
                    nursery.start_soon(download.receive, stream)
                    for number, (position, signum) in enumerate(deeds):
                        download.gates[number].set()
                        middle = number * PART + PART // 4
                        await eventually(lambda middle=middle: download.received > middle)
                        await restart(servers[position], position, balancer, signum)
                    download.gates[-1].set()
                    whole = download.parts * PART
                    await eventually(lambda: download.received == whole)
                    over.set()
                assert download.came.hexdigest() == download.sent.hexdigest()
                assert lines[0] > 10
                # It is the same session, over links to one server after the other.
                assert reaching.begin() is session
                assert len(set(balancer.taken)) > 2

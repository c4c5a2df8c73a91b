"""A relay server on a port of this machine, by its file or in this process, and those who come to it."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import trio

from session_proxy.observability.log_settings import LogFormat, LogLevel, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.relay_loading import load_relay_server
from session_proxy.profile.relay_model import RelayServer
from session_proxy.supervision.relay_server import RelayServerDaemon
from tests.support.programs import Sproxy, running
from tests.support.relay_tokens import SECRET
from tests.support.tunnels import eventually
from tunnel_relay.protocol.audit_chain import Intact, verify
from tunnel_relay.protocol.upgrade import CONNECT_PATH, SUBPROTOCOL
from tunnel_relay.websocket import WebSocket, open_websocket

JWT = '[jwt]\nalgorithms = "HS256"\nkeys = "file:secret"\n'


def write_relay(
    folder: Path,
    *,
    top: str = "",
    keys: str = JWT,
    jwt: str = "",
    audit: str = '"audit.jsonl"',
    more: str = "",
) -> Path:
    """Write a ``relay.toml`` whose tokens are those of `make_token`, and what it names."""
    secret, file = folder / "secret", folder / "relay.toml"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    text = f'listen = "127.0.0.1:0"\n{top}\n{keys}{jwt}\n[audit]\nfile = {audit}\n{more}\n'
    file.write_text(text)
    return file


def load_relay(folder: Path, **parts: str) -> RelayServer:
    """Return what a file with these parts says; see `write_relay`."""
    return load_relay_server(write_relay(folder, **parts), environ={"HOME": str(folder)})


@attrs.define(eq=False)
class Served:
    """A daemon, its address, its log, and how to stop it; *over* is set when it has returned."""

    daemon: RelayServerDaemon
    address: ListenAddress
    log: list[dict[str, object]]
    stop: trio.Event
    over: trio.Event = attrs.field(factory=trio.Event)

    @property
    def url(self) -> str:
        """Where it is asked for links."""
        return f"ws://{self.address}{CONNECT_PATH}"

    def lines(self, event: str) -> list[dict[str, object]]:
        """Return the fields of the lines about *event*."""
        return [line for line in self.log if line["event"] == event]

    async def line(self, event: str) -> dict[str, object]:
        """Return the last line about *event*, when there is one."""
        await eventually(lambda: bool(self.lines(event)))
        return self.lines(event)[-1]

    def metrics(self) -> dict[str, float]:
        """Return what is counted, as Prometheus' lines have it."""
        body, _ = self.daemon.render_metrics("")
        lines = [line.rpartition(" ") for line in body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def audited(self) -> list[dict[str, object]]:
        """Return the audit log, which is intact."""
        assert self.daemon.config.audit is not None
        return read_audit(self.daemon.config.audit.file)

    async def ask(self, request: bytes) -> bytes:
        """Return what is answered to *request*."""
        async with await trio.open_tcp_stream(self.address.host, self.address.port) as stream:
            await stream.send_all(request)
            return b"".join([bytes(chunk) async for chunk in stream])

    @asynccontextmanager
    async def link(self, token: str, query: str = "", **headers: str) -> AsyncGenerator[WebSocket]:
        """Be linked, by a token."""
        async with open_link(f"{self.url}{query}", token, headers=headers) as websocket:
            yield websocket


@asynccontextmanager
async def open_link(
    url: str, token: str, *, context: ssl.SSLContext | None = None, headers: Mapping[str, str] | None = None
) -> AsyncGenerator[WebSocket]:
    """Be linked at *url*, by a token."""
    fields = {"Authorization": f"Bearer {token}", **(headers or {})}
    async with open_websocket(
        url, ssl_context=context, headers=list(fields.items()), subprotocol=SUBPROTOCOL
    ) as websocket:
        yield websocket


def read_audit(file: Path) -> list[dict[str, object]]:
    """Return what an audit log says, which must be intact."""
    lines = file.read_bytes().splitlines()
    found = verify(lines)
    assert isinstance(found, Intact), found
    return [json.loads(line) for line in lines]


@asynccontextmanager
async def open_relay_daemon(server: RelayServer) -> AsyncGenerator[Served]:
    """Run a relay server in this process; it is stopped, if it was not, and over when the block ends."""
    log: list[dict[str, object]] = []
    settings = LogSettings(log_format=LogFormat.JSON, level=LogLevel.DEBUG)
    daemon = RelayServerDaemon(server, make_logger(lambda line: log.append(json.loads(line)), settings))
    stop = trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
            await daemon.serve(stop, task_status=task_status)
            served.over.set()

        served = Served(daemon, ListenAddress("", 0), log, stop)
        [served.address] = await nursery.start(serve)
        yield served
        stop.set()


@contextmanager
def start_relay_server(file: Path, *options: str, env: Mapping[str, str]) -> Generator[Sproxy]:
    """Run ``sproxy relay-server FILE`` until the block ends; it is ready when the block begins."""
    argv = ["relay-server", str(file), "--log-format", "json", *options]
    log = file.with_name(f"{file.stem}.log")
    with running(argv, log, env) as process:
        relay = Sproxy(process, log, file)
        ready = relay.wait_for(lambda: relay.find("ready", worker=None))
        relay.address, relay.admin = str(ready["listen"]), str(ready["admin"])
        yield relay

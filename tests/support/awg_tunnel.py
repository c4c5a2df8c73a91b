"""``sproxy awg-server`` and ``sproxy awg-client`` as a user runs them, and a bad network between them.

with open_tunnel(folder) as tunnel:
    ...  # tunnel.client.address, tunnel.proxy for curl, tunnel.server, tunnel.network.set(loss=0.05)
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import tomli_w

from tests.support.programs import Sproxy, run_sproxy, running

USER, PASSWORD = "app", "sesame"
Toml = dict[str, Any]

# How often to look whether something has happened.
POLL = 0.02
# What anything takes on a machine that has other things to do.
PATIENCE = 30.0


def free_udp_port() -> int:
    """Return a UDP port of loopback that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@attrs.define(eq=False)
class Network:
    """A running `benchmarks.udp_relay`: clients send to its *port*."""

    process: subprocess.Popen[str]
    port: int
    record: Path | None

    def set(self, **weather: float) -> None:
        """Change what it does; returns when it does so."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(weather) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline()

    def entries(self) -> Iterator[tuple[float, str, bytes]]:
        """Yield every datagram so far: when, ``to-server`` or ``to-client``, and what."""
        assert self.record is not None
        for line in self.record.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                entry = json.loads(line)
                yield entry["time"], entry["way"], bytes.fromhex(entry["datagram"])


@contextmanager
def open_network(port: int, record: Path | None = None) -> Generator[Network]:
    """Relay to the server on *port* for the block; *record* gets every datagram."""
    argv = [sys.executable, "-m", "benchmarks.udp_relay", f"127.0.0.1:{port}"]
    if record is not None:
        argv += ["--record", str(record)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Network(process, int(process.stdout.readline()), record)
        finally:
            process.stdin.close()


@attrs.define(eq=False)
class Site:
    """A folder with the files of a server and a client that fit each other, and where each listens."""

    folder: Path
    server: Toml
    client: Toml
    env: dict[str, str]
    fast: bool

    @classmethod
    def new(cls, folder: Path, *, preset: str = "dns", fast: bool = True) -> Site:
        """Run ``sproxy awg-keygen``; the server may be asked for destinations on this machine.

        Without *fast*, its programs find no qh3, as where the extra of that name is not installed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        port = free_udp_port()
        made = run_sproxy(
            "awg-keygen", str(folder / "keys"), "--endpoint", f"127.0.0.1:{port}", "--preset", preset
        )
        assert made.returncode == 0, made.stderr
        server, client = (
            tomllib.loads((folder / "keys" / name).read_text()) for name in ("server.toml", "client.toml")
        )
        server |= {"listen": f"127.0.0.1:{port}", "state": str(folder / "state"), "policy": {"deny": []}}
        client |= {
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0"},
            "auth": {"user": USER, "pass": PASSWORD},
        }
        # Sockets and state of its own: several tests run at once.
        env = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "XDG_STATE_HOME": str(folder)}
        if not fast:
            shadow = folder / "without-qh3"
            shadow.mkdir()
            (shadow / "qh3.py").write_text("raise ImportError('hidden by a test')\n")
            env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(shadow), env.get("PYTHONPATH"))))
        return cls(folder, server, client, env, fast)

    @property
    def port(self) -> int:
        """Where the server listens."""
        return int(self.server["listen"].rpartition(":")[2])

    @contextmanager
    def start_server(self, *, within: Sequence[str] = (), **changes: object) -> Generator[Sproxy]:
        """Run ``sproxy awg-server`` for the block."""
        file = self._write("server", {**self.server, **changes})
        with start_daemon("awg-server", file, self.env, within) as server:
            yield server

    @contextmanager
    def start_client(
        self, port: int | None = None, *, within: Sequence[str] = (), **changes: object
    ) -> Generator[Sproxy]:
        """Run ``sproxy awg-client`` for the block, towards *port* instead of the server's own."""
        endpoint = {} if port is None else {"endpoint": f"127.0.0.1:{port}"}
        file = self._write("client", {**self.client, **endpoint, **changes})
        with start_daemon("awg-client", file, self.env, within) as client:
            yield client

    @contextmanager
    def start_proxy(self, port: int | None = None, **tables: object) -> Generator[Sproxy]:
        """Run ``sproxy run`` for the block, with an upstream ``edge`` of kind ``awg``."""
        keep = ("endpoint", "private_key", "public_key", "preshared_key", "keepalive_padding", "mtu", "awg")
        upstream = {key: self.client[key] for key in keep if key in self.client}
        if port is not None:
            upstream["endpoint"] = f"127.0.0.1:{port}"
        profile = {
            "listen": "127.0.0.1:0",
            "default": "edge",
            **tables,
            "upstreams": {"edge": {"kind": "awg", **upstream}},
        }
        with start_daemon("run", self._write("profile", profile), self.env) as proxy:
            yield proxy

    def _write(self, name: str, content: Mapping[str, object]) -> Path:
        file = self.folder / f"{name}.toml"
        # TOML wants plain keys before tables.
        plain = {
            key: value for key, value in content.items() if not isinstance(value, dict) and key != "peers"
        }
        file.write_text(tomli_w.dumps({**plain, **content}))
        file.chmod(0o600)
        return file


@contextmanager
def start_daemon(
    command: str, file: Path, env: Mapping[str, str], within: Sequence[str] = ()
) -> Generator[Sproxy]:
    """Run a daemon of ours until the block ends; it is ready when the block begins."""
    log = file.with_suffix(".log")
    argv = [command, str(file), "--log-format", "json", "--log-level", "debug"]
    with running(argv, log, env, within) as process:
        daemon = Sproxy(process, log, file)
        ready = daemon.wait_for(lambda: daemon.find("ready"))
        daemon.address, daemon.admin = (str(ready.get(key, "")).split(",")[0] for key in ("listen", "admin"))
        yield daemon


@attrs.define(eq=False)
class Tunnel:
    """A server, a client, and what is between them."""

    site: Site
    server: Sproxy
    client: Sproxy
    network: Network

    @property
    def proxy(self) -> str:
        """The client's port as curl wants it, credentials included; names are resolved by the server."""
        return f"socks5h://{USER}:{PASSWORD}@{self.client.address}"

    def wait_usable(self, patience: float = PATIENCE) -> float:
        """Wait until the client says it is ready, and return how long that took; nothing is sent through it."""
        return wait_ready(self.client, patience)


def is_ready(daemon: Sproxy) -> bool:
    """Ask the admin page whether every part works."""
    try:
        with urllib.request.urlopen(f"http://{daemon.admin}/readyz", timeout=PATIENCE) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as exc:
        exc.close()
        return False


def wait_ready(daemon: Sproxy, patience: float = PATIENCE, *, ready: bool = True) -> float:
    """Wait until *daemon* is (or is not) *ready*, and return the seconds that it took."""
    began = time.monotonic()
    while is_ready(daemon) != ready:
        waited = time.monotonic() - began
        assert waited < patience, (
            f"still {'not ' * ready}ready after {waited:.1f} s:\n{daemon.text()[-4000:]}"
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.process.wait(POLL)
    return time.monotonic() - began


@contextmanager
def open_tunnel(
    folder: Path, *, record: bool = False, preset: str = "dns", fast: bool = True
) -> Generator[Tunnel]:
    """Run a server, a network and a client for the block; the session is up when it begins."""
    site = Site.new(folder, preset=preset, fast=fast)
    with (
        site.start_server() as server,
        open_network(site.port, folder / "capture" if record else None) as network,
        site.start_client(network.port) as client,
    ):
        tunnel = Tunnel(site, server, client, network)
        tunnel.wait_usable()
        yield tunnel

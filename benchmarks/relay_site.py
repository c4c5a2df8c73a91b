"""A relay for benchmarks: server, agent and sshd, each a process of its own, as their files have them."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import tomli_w
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.arena import FailedError, Load, Targets
from benchmarks.contestants import SPROXY, Sshd, open_sshd
from benchmarks.processes import conversation, free_port, program
from tunnel_relay.protocol.tokens import Claims, Scope, issue, read_keys

USER, AGENT, TIER = "bench", "bench", "bench"
LIFETIME = 24 * 3600.0

# What is measured is the relay and not its limits.
PLENTY = 1_000_000
RATES = {"requests_per_minute": 100_000_000, "opens_per_second": PLENTY}
HELD = {"connections": PLENTY, "sessions": PLENTY, "streams": PLENTY}
FEATURES = ["requests", "compression", "agent-pools"]

# A server is up within a second; a busy machine takes longer to import it.
PATIENCE = 40.0
POLL = 0.05


@attrs.define(eq=False)
class RelaySite:
    """The processes, and what clients need to get there.

    Attributes:
      folder: Where the files are.
      port: Where the relay server listens.
      sshd: What the agent offers as ``ssh``.
      environ: Of all processes.
      server: The relay server.
      agent: The agent.

    """

    folder: Path
    port: int
    sshd: Sshd
    environ: Mapping[str, str] = attrs.field(repr=False)
    server: int = 0
    agent: int = 0
    _servers: AsyncExitStack = attrs.field(factory=AsyncExitStack, init=False, repr=False)

    @property
    def url(self) -> str:
        """Where the relay is."""
        return f"wss://127.0.0.1:{self.port}"

    def upstream(self, mode: str) -> dict[str, object]:
        """Return the table of an upstream of kind ``relay``, of that *mode*."""
        return {
            "kind": "relay",
            "mode": mode,
            "token": "file:client.token",
            "ca": "cert.pem",
            "agent": AGENT,
            "endpoints": [{"url": self.url}],
            "ssh": self.login("known_hosts"),
        }

    def login(self, known_hosts: str) -> dict[str, str]:
        """Return how to log in at the sshd."""
        return {
            "user": self.sshd.user,
            "key": str(self.sshd.key),
            "known_hosts": str(self.folder / known_hosts),
        }

    async def start_server(self) -> None:
        """Start the relay server, at the port that it has always; return when it is well."""
        log = self.folder / "relay.log"
        argv = [*SPROXY, "relay-server", str(self.folder / "relay.toml"), "--log-level", "warning"]
        process = await self._servers.enter_async_context(program(argv, log=log, env=self.environ))
        self.server = process.pid
        await wait_listening(self.port, process, log)

    async def stop_server(self) -> None:
        """End the relay server by SIGTERM."""
        await self._servers.aclose()


async def wait_listening(port: int, process: trio.Process, log: Path) -> None:
    """Return when *process* accepts connections at *port*; raises `FailedError` with the end of its *log*."""
    with trio.move_on_after(PATIENCE):
        while process.poll() is None:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                await trio.sleep(POLL)
            else:
                return
    text = await trio.Path(log).read_text(errors="replace")
    raise FailedError(f"nobody listens on port {port}: {text.strip().rpartition(chr(10))[2]}")


async def wait_linked(agent: trio.Process, log: Path) -> None:
    """Return when the *agent* says in its *log* that it is linked; raises `FailedError` with the log's end."""
    text = ""
    with trio.move_on_after(PATIENCE):
        while agent.poll() is None and " linked " not in text:
            await trio.sleep(POLL)
            text = await trio.Path(log).read_text(errors="replace")
    if " linked " not in text:
        raise FailedError(f"the agent is not linked: {text.strip().rpartition(chr(10))[2]}")


@asynccontextmanager
async def open_site(folder: Path, targets: Targets) -> AsyncGenerator[RelaySite]:
    """Run a relay server and an agent for the block; the agent offers an sshd, and *targets* by their names.

    Raises:
      AbsentError: there is no sshd here.

    """
    write_certificate(folder)
    secret = secrets.token_hex(32)
    _write(folder / "secret", secret)
    for scope in Scope:
        _write(folder / f"{scope.value}.token", make_token(secret, scope))
    # Sockets and records of another program of these names stay what they are.
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "XDG_STATE_HOME": str(folder / "state")}
    async with open_sshd(folder) as sshd, AsyncExitStack() as stack:
        site = RelaySite(folder, free_port(), sshd, environ)
        _write(folder / "relay.toml", tomli_w.dumps(_relay(site)))
        _write(folder / "agent.toml", tomli_w.dumps(_agent(site, targets)))
        _write(folder / "client.json", json.dumps(_client(site, targets)))
        stack.push_async_callback(site.stop_server)
        await site.start_server()
        argv, log = [*SPROXY, "relay-agent", str(folder / "agent.toml")], folder / "agent.log"
        agent = await stack.enter_async_context(program(argv, log=log, env=environ))
        await wait_linked(agent, log)
        site.agent = agent.pid
        yield site


@asynccontextmanager
async def open_library(site: RelaySite) -> AsyncGenerator[tuple[Load, int]]:
    """Run `benchmarks.relay_client` for the block; yields how to command it, and its process."""
    argv = [sys.executable, "-m", "benchmarks.relay_client", str(site.folder / "client.json")]
    async with conversation(argv) as process:
        yield Load(process), process.pid


def make_token(secret: str, *scopes: Scope) -> str:
    """Return a token that *secret* has signed."""
    now = time.time()
    claims = Claims(USER, now + LIFETIME, TIER, frozenset(scopes), secrets.token_hex(8))
    return issue(claims, read_keys(secret, ["HS256"])[""], audience="session-proxy", now=now)


def write_certificate(folder: Path) -> None:
    """Write ``cert.pem``, a certificate of 127.0.0.1 that signs itself, and ``key.pem``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=7))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder / "cert.pem", made.public_bytes(serialization.Encoding.PEM).decode())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(folder / "key.pem", pem.decode())


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)


def _relay(site: RelaySite) -> dict[str, object]:
    return {
        "listen": f"127.0.0.1:{site.port}",
        "profile": "high-throughput",
        "tls": {"certificate": "file:cert.pem", "key": "file:key.pem"},
        "jwt": {"algorithms": "HS256", "keys": "file:secret"},
        "audit": {"file": "audit.jsonl"},
        "limits": {"upgrades_per_minute": PLENTY, "upgrade_burst": PLENTY, "drain": 1},
        "tiers": {
            TIER: {**RATES, **HELD, "modes": ["end-to-end", "relay-ssh"], "features": FEATURES},
        },
        "users": {USER: {"ssh": site.login("relay_known_hosts")}},
    }


def _agent(site: RelaySite, targets: Targets) -> dict[str, object]:
    return {
        "name": AGENT,
        "token": "file:agent.token",
        "ca": "cert.pem",
        "state": "agent-state",
        "endpoints": [{"url": site.url}],
        "services": {"ssh": f"127.0.0.1:{site.sshd.port}", **services(targets)},
    }


def services(targets: Targets) -> dict[str, str]:
    """Return what an agent offers beside SSH."""
    return {name: f"{host}:{port}" for name, (host, port) in attrs.asdict(targets, recurse=False).items()}


def _client(site: RelaySite, targets: Targets) -> dict[str, object]:
    return {
        "url": site.url,
        "folder": str(site.folder),
        "agent": AGENT,
        "services": attrs.asdict(targets, recurse=False),
    }

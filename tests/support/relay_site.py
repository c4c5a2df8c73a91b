"""A relay server, an agent beside a real sshd, and a proxy, each a process of its own, with cables between them."""

from __future__ import annotations

import signal
import socket
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from tests.support.patched_cable import PatchedCable, open_cable
from tests.support.programs import Program, Sproxy, running, start_sproxy
from tests.support.relay_daemon import start_relay_server, write_relay
from tests.support.relay_tokens import make_certificate, make_token
from tests.support.sproxy import clean_environ
from tests.support.sshd import Sshd, generate_key, start_sshd
from tunnel_relay.protocol.tokens import Scope

CERTIFICATE = make_certificate()
HOURS = 4 * 3600


@attrs.define(eq=False)
class RelaySite:
    """The processes, and the cables of the client and of the agent."""

    folder: Path
    environ: Mapping[str, str]
    port: int
    sshd: Sshd
    client_cable: PatchedCable
    agent_cable: PatchedCable
    server: Sproxy
    agent: Program
    proxy: Sproxy
    _stack: ExitStack
    _servers: ExitStack

    def restart_server(self) -> None:
        """End the relay server by SIGTERM, and start it again."""
        assert self.server.stop(signal.SIGTERM) == 0
        self._servers.close()
        self.start_server()

    def start_server(self) -> None:
        """Start the relay server, at the port that it has always."""
        self.server = self._servers.enter_context(
            start_relay_server(self.folder / "relay.toml", env=self.environ)
        )


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def write_token(file: Path, user: str, scope: Scope, tier: str = "enterprise") -> None:
    file.write_text(make_token(user, scope, seconds=HOURS, tier=tier, token_id=f"{user}-{scope.value}"))
    file.chmod(0o600)


def write_agent(folder: Path, port: int, sshd: int) -> Path:
    """Write an agent.toml, for a relay behind *port*."""
    write_token(folder / "agent.token", "alice", Scope.AGENT)
    file = folder / "agent.toml"
    file.write_text(
        f'name = "nas"\ntoken = "file:agent.token"\nca = "cert.pem"\nstate = "state"\n'
        f'endpoints = [{{ url = "wss://127.0.0.1:{port}" }}]\n[services]\nssh = "127.0.0.1:{sshd}"\n'
    )
    return file


def write_profile(folder: Path, port: int, user: str, mode: str) -> Path:
    """Write a profile.toml, for a relay behind *port*, in which *user* logs in at the sshd."""
    write_token(folder / "client.token", "alice", Scope.CLIENT)
    file = folder / "profile.toml"
    file.write_text(
        f'listen = "127.0.0.1:0"\ndefault = "home"\n[upstreams.home]\nkind = "relay"\nmode = "{mode}"\n'
        f'token = "file:client.token"\nca = "cert.pem"\nagent = "nas"\n'
        f'endpoints = [{{ url = "wss://127.0.0.1:{port}" }}]\n'
        f'[upstreams.home.ssh]\nuser = "{user}"\nkey = "id"\nknown_hosts = "known_hosts"\n'
    )
    return file


@contextmanager
def open_site(folder: Path, *, mode: str = "end-to-end", limits: str = "") -> Generator[RelaySite]:
    """Run it all for the block; *limits* are those of the relay server."""
    folder.mkdir(parents=True, exist_ok=True)
    environ = clean_environ(folder)
    CERTIFICATE.write(folder)
    public = generate_key(folder / "id")
    port = free_port()
    with ExitStack() as stack, ExitStack() as servers:
        sshd = stack.enter_context(start_sshd(folder / "sshd", authorized=[public]))
        users = f'[users.alice.ssh]\nuser = "{sshd.user}"\nkey = "id"\n'
        relay = write_relay(
            folder,
            top='tls = { certificate = "cert.pem", key = "key.pem" }\nadmin = { listen = "127.0.0.1:0" }',
            more=f"{users}[limits]\n{limits}\n",
        )
        relay.write_text(relay.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}", 1))
        client_cable = stack.enter_context(open_cable(port))
        agent_cable = stack.enter_context(open_cable(port))
        server = servers.enter_context(start_relay_server(relay, env=environ))
        agent_file = write_agent(folder, agent_cable.port, sshd.port)
        log = folder / "agent.log"
        agent = Program(
            stack.enter_context(
                running(["relay-agent", str(agent_file), "--log-format", "json"], log, environ)
            ),
            log,
        )
        agent.wait_for(lambda: '"linked"' in agent.text() or None)
        profile = write_profile(folder, client_cable.port, sshd.user, mode)
        proxy = stack.enter_context(start_sproxy(profile, env=environ))
        yield RelaySite(
            folder,
            environ,
            port,
            sshd,
            client_cable,
            agent_cable,
            server,
            agent,
            proxy,
            stack,
            servers,
        )

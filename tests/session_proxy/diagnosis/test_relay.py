"""The stages of a ``relay`` upstream and of an agent's file, by a real relay to a real sshd."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.lab.relay import open_relay
from session_proxy.profile.model import Profile, RelayEndpoint, RelayUpstream, Ssh
from session_proxy.profile.relay_model import RelayAgent
from session_proxy.profile.secret import Secret
from session_proxy.profile.secret_sources import SecretSources
from session_proxy.target import Target
from tests.support.examined import examined, examined_upstream
from tests.support.relay_daemon import load_relay, open_relay_daemon
from tests.support.relay_tokens import make_certificate, make_token
from tests.support.sshd import Sshd, generate_key, start_sshd
from tests.support.stages import failure_of, outcomes, stage_of
from tunnel_relay.agent.running import AgentSettings, open_agent
from tunnel_relay.background import open_background
from tunnel_relay.dial_settings import DialSettings
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.tokens import Scope
from tunnel_relay.stages import Step


@attrs.define(eq=False)
class Nas:
    """A real sshd, and what logs in to it."""

    server: Sshd
    home: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"HOME": str(self.home)}

    @property
    def address(self) -> Target:
        return Target.of("127.0.0.1", self.server.port)

    @property
    def ssh(self) -> Ssh:
        return Ssh(user=self.server.user, key=str(self.home / "key"), known_hosts=self.home / "known_hosts")

    @asynccontextmanager
    async def upstream(self) -> AsyncGenerator[RelayUpstream]:
        """The way to it."""
        async with open_relay(self.address) as way:
            yield attrs.evolve(way, ssh=self.ssh)


@pytest.fixture
def nas(tmp_path: Path) -> Generator[Nas]:
    """Serve until the test ends."""
    public = generate_key(tmp_path / "key")
    with start_sshd(tmp_path / "sshd", authorized=[public]) as server:
        yield Nas(server, tmp_path)


async def test_all_is_well(nas: Nas) -> None:
    async with nas.upstream() as upstream:
        found = await examined_upstream(upstream, nas.environ, target=str(nas.address))

    assert outcomes(found.stages) == {
        "configuration": "ok",
        "credentials": "ok",
        "names": "ok",
        "reach": "ok",
        "tls": "skipped",
        "handshake": "ok",
        "ssh": "ok",
        "echo": "ok",
    }
    assert stage_of(found.stages, Step.CREDENTIALS).found == (
        f"token for client, good for 365 days, SSH key {nas.home / 'key'}"
    )
    assert stage_of(found.stages, Step.SSH).found.startswith(f"logged in as {nas.server.user}, ")
    assert "SSH-2.0-OpenSSH" in stage_of(found.stages, Step.ECHO).found


async def test_each_relay_server_has_its_own_stages(nas: Nas) -> None:
    async with nas.upstream() as upstream:
        both = (RelayEndpoint(url="ws://127.0.0.1:1"), *upstream.endpoints)
        profile_way = attrs.evolve(upstream, endpoints=both)
        first, second = await examined(Profile(upstreams={"home": profile_way}), nas.environ)

    assert (first.via, first.exit_code) == ("ws://127.0.0.1:1", 69)
    assert failure_of(first.stages).cause == "127.0.0.1, port 1: Connection refused"
    assert (second.via, second.exit_code) == (upstream.endpoints[0].url, 0)


@pytest.mark.parametrize(
    ("changes", "step", "cause", "exit_code"),
    [
        ({"agent": "pi"}, Step.HANDSHAKE, "no agent 'pi' is connected", 69),
        ({"mode": "relay-ssh"}, Step.HANDSHAKE, "this relay has no mode 'relay-ssh'", 77),
        ({"service": "sshd"}, Step.SSH, "the agent's service 'sshd': no service 'sshd' is offered", 69),
        ({"ca": Path("/nowhere/ca.pem")}, Step.CREDENTIALS, "ca: /nowhere/ca.pem cannot be used", 78),
        ({"ssh": Ssh(key="/nowhere/key")}, Step.CREDENTIALS, "/nowhere/key does not exist", 78),
        (
            {"token": Secret("literal", "", make_token("lab", seconds=-7300))},
            Step.CREDENTIALS,
            "the token expired 2 h ago",
            77,
        ),
        (
            {"token": Secret("literal", "", make_token("lab"))},
            Step.HANDSHAKE,
            "the relay does not accept the token: ",
            77,
        ),
    ],
)
async def test_what_is_wrong(
    nas: Nas, changes: dict[str, object], step: Step, cause: str, exit_code: int
) -> None:
    async with nas.upstream() as upstream:
        found = await examined_upstream(attrs.evolve(upstream, **changes), nas.environ)

    stage = failure_of(found.stages)
    assert (stage.step, found.exit_code) == (step, exit_code)
    assert stage.cause.startswith(cause)
    assert stage.fix
    assert outcomes(found.stages)["echo"] == "skipped"


async def test_a_relay_that_logs_in_itself(nas: Nas, tmp_path: Path) -> None:
    more = (
        f'[tiers.free]\nmodes = ["relay-ssh"]\n[users.alice.ssh]\nuser = "{nas.server.user}"\n'
        f'key = "{nas.home / "key"}"\nknown_hosts = "{nas.home / "hosts"}"\n'
    )
    folder = tmp_path / "relay"
    folder.mkdir()
    async with open_relay_daemon(load_relay(folder, more=more)) as served:
        url = f"ws://{served.address}"
        linked = trio.Event()
        settings = AgentSettings(
            name="nas",
            services={"ssh": (nas.address.host, nas.address.port)},
            dial=DialSettings(endpoints=[Endpoint(url=url)]),
        )

        async def token(*, anew: bool) -> str:
            await trio.lowlevel.checkpoint()
            return make_token("alice", Scope.AGENT)

        async with open_agent(
            settings, token, rng=lambda: 0.5, unix_time=time.time, notify=lambda _event: linked.set()
        ):
            await linked.wait()
            upstream = RelayUpstream(
                endpoints=(RelayEndpoint(url=url),),
                token=Secret("literal", "", make_token("alice", Scope.CLIENT)),
                mode="relay-ssh",
            )
            found = await examined_upstream(upstream, nas.environ, target=str(nas.address))

    assert found.exit_code == 0, found
    ssh = stage_of(found.stages, Step.SSH)
    assert (ssh.outcome, ssh.cause) == ("skipped", "the relay logs in, with the key that it has for the user")
    assert "SSH-2.0-OpenSSH" in stage_of(found.stages, Step.ECHO).found


async def test_tls_and_who_is_believed_about_it(nas: Nas, tmp_path: Path) -> None:
    folder = tmp_path / "relay"
    folder.mkdir()
    make_certificate().write(folder)
    tls = '[tls]\ncertificate = "file:cert.pem"\nkey = "file:key.pem"\n'
    async with open_relay_daemon(load_relay(folder, more=tls)) as served:
        upstream = RelayUpstream(
            endpoints=(RelayEndpoint(url=f"wss://{served.address}"),),
            token=Secret("literal", "", make_token("alice", Scope.CLIENT)),
            ca=folder / "cert.pem",
            ssh=nas.ssh,
        )
        found = await examined_upstream(upstream, nas.environ)
        assert stage_of(found.stages, Step.TLS).found == "TLS 1.3, certificate good for 29 days"
        assert failure_of(found.stages).cause == "no agent of 'alice' is connected"

        found = await examined_upstream(attrs.evolve(upstream, ca=None), nas.environ)
        stage = failure_of(found.stages)
        assert (stage.step, found.exit_code) == (Step.TLS, 78)
        assert stage.cause == "the server's certificate is signed by itself, unknown to this machine"
        assert stage.fix == 'name its certificate, or that of its authority: ca = "ca.pem"'


async def test_the_file_of_an_agent(nas: Nas, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(make_token("alice", Scope.AGENT))
    (tmp_path / "token").chmod(0o644)
    folder = tmp_path / "relay"
    folder.mkdir()
    async with open_relay_daemon(load_relay(folder)) as served:
        agent = RelayAgent(
            name="nas",
            token=SecretSources(tmp_path, {}).read("file:token"),
            endpoints=(RelayEndpoint(url=f"ws://{served.address}"),),
            services={"ssh": nas.address},
        )
        [found] = await examined(agent, nas.environ, base=tmp_path)

        assert (found.name, found.kind, found.outcome) == ("nas", "agent", "warning")
        assert stage_of(found.stages, Step.CREDENTIALS).cause.startswith(
            f"token: {tmp_path / 'token'} can be"
        )
        assert stage_of(found.stages, Step.HANDSHAKE).found == "the relay accepts the token"
        assert f'ssh at {nas.address} says "SSH-2.0-' in stage_of(found.stages, Step.ECHO).found
        # It has not become an agent.
        assert not any(line.get("agent") == "nas" for line in served.log)

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            closed = Target.of("127.0.0.1", free.getsockname()[1])
            [found] = await examined(attrs.evolve(agent, services={"db": closed}), nas.environ, base=tmp_path)
        stage = failure_of(found.stages)
        assert (stage.cause, found.exit_code) == (f"service 'db' at {closed}: connection refused", 69)

        async def hang_up(stream: trio.SocketStream) -> None:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()

        async with open_background() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
            rude = Target.of("127.0.0.1", listeners[0].socket.getsockname()[1])
            [found] = await examined(attrs.evolve(agent, services={"db": rude}), nas.environ, base=tmp_path)
        assert failure_of(found.stages).cause == f"service 'db' at {rude}: hung up"

        forged = Secret("literal", "", make_token("alice", Scope.AGENT, secret="z" * 40))
        [found] = await examined(attrs.evolve(agent, token=forged), nas.environ)
        assert failure_of(found.stages).step is Step.HANDSHAKE
        assert found.exit_code == 77

"""A relay server that logs in itself: from its file to a target behind a real sshd."""

from __future__ import annotations

import functools
import random
import shutil
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio

from session_proxy.errors import ProfileError, RefusedError, TransportDownError, UnreachableError
from session_proxy.outbound.relay import open_relay_transport
from session_proxy.outbound.relay_dialing import SecretTokens
from session_proxy.outbound.transport import Services, Transport
from session_proxy.profile.model import RelayEndpoint, RelayUpstream
from session_proxy.profile.secret import Secret
from session_proxy.supervision.relay_logins import RECORD, change_relay_ssh, relay_ssh_settings_of
from session_proxy.target import Target
from tests.support.exchanges import exchange
from tests.support.relay_daemon import Served, load_relay, open_relay_daemon
from tests.support.relay_ssh_world import open_echo
from tests.support.relay_tokens import make_token
from tests.support.sshd import HOST, SSHD, Sshd, generate_key, start_sshd
from tests.support.tunnels import eventually
from tunnel_relay.agent.running import AgentSettings, open_agent
from tunnel_relay.client.service import TunnelSettings, open_tunnel_service
from tunnel_relay.dial_settings import DialSettings
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.protocol.requests import Response, Status
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.protocol.tokens import Scope

SECONDS = 90
TIER = '[tiers.gold]\nmodes = ["end-to-end", "relay-ssh"]\n'


@attrs.frozen
class Home:
    """A folder with a relay's file, and a real sshd that takes the key in it."""

    folder: Path
    sshd: Sshd

    def users(self, more: str = "") -> str:
        """Return what the relay's file says of users, and *more*."""
        user = f'user = "{self.sshd.user}"\nkey = "alice.key"\nknown_hosts = "known_hosts"\n'
        return f"[users.alice.ssh]\n{user}{more}{TIER}"


@pytest.fixture
def home(tmp_path: Path) -> Generator[Home]:
    if not SSHD:
        pytest.skip("sshd is not installed")
    public = generate_key(tmp_path / "alice.key")
    with start_sshd(tmp_path / "sshd", authorized=[public]) as sshd:
        yield Home(tmp_path, sshd)


@asynccontextmanager
async def open_client(
    served: Served, home: Home, *, user: str = "alice", tier: str = "gold"
) -> AsyncGenerator[Transport]:
    """Run an agent of alice, and a client of *user*."""
    token = functools.partial(Secret, "literal", "")
    async with open_agent_of(served, home):
        upstream = RelayUpstream(
            endpoints=(RelayEndpoint(url=f"ws://{served.address}"),),
            token=token(make_token(user, Scope.CLIENT, tier=tier)),
            mode="relay-ssh",
            startup="background",
        )
        services = Services(rng=random.Random(1), environ={"HOME": str(home.folder)})
        async with open_relay_transport("home", upstream, services) as transport:
            yield transport


@asynccontextmanager
async def open_agent_of(served: Served, home: Home) -> AsyncGenerator[None]:
    """Run an agent of alice."""
    url = f"ws://{served.address}"
    agent = AgentSettings(
        name="nas",
        services={"ssh": (HOST, home.sshd.port)},
        dial=DialSettings(endpoints=[Endpoint(url=url)]),
    )
    async with open_agent(
        agent,
        SecretTokens(Secret("literal", "", make_token("alice", Scope.AGENT))),
        rng=random.random,
        unix_time=time.time,
        notify=lambda _event: None,
    ):
        yield


async def test_a_target_is_reached_through_the_relay_s_own_ssh(home: Home) -> None:
    data = random.Random(1).randbytes(1_000_000)
    with trio.fail_after(SECONDS):
        async with (
            open_echo() as echo,
            open_relay_daemon(load_relay(home.folder, more=home.users())) as served,
            open_client(served, home) as client,
        ):
            host, _, port = echo.partition(":")
            assert await exchange(await client.connect_tcp(Target.of(host, int(port))), data) == data
            with pytest.raises((RefusedError, UnreachableError)):
                await client.connect_tcp(Target.of(HOST, 1))
            line = await served.line("ssh connected")
            assert line["userId"] == "alice"
            assert "'agent': 'nas'" in str(line["context"])
            assert "'recorded': 'SHA256:" in str(line["context"])
            assert (home.folder / "known_hosts").read_text() == f"alice/nas {home.sshd.host_key}\n"
            assert served.metrics()["tunnel_circuit_breaker_state"] == 0
        assert served.lines("ssh ended")


async def test_logins_are_audited(home: Home) -> None:
    """One that comes about, and one that meets another host key than is known."""
    with trio.fail_after(SECONDS):
        async with (
            open_echo() as echo,
            open_relay_daemon(load_relay(home.folder, more=home.users())) as served,
            open_client(served, home) as client,
        ):
            target = Target.parse(echo)
            assert await exchange(await client.connect_tcp(target), b"hello") == b"hello"
            ssh = served.daemon._relay_ssh
            assert ssh is not None
            [side] = ssh._sides.values()
            other = generate_key(home.folder / "other")
            (home.folder / "known_hosts").write_text(f"alice/nas {other}\n")
            await eventually(side.pool.close_unused)
            with pytest.raises(UnreachableError):
                await client.connect_tcp(target)
        logins = [entry for entry in served.audited() if entry["action"] == "login"]
        assert [(entry["userId"], entry["resource"], entry["result"]) for entry in logins] == [
            ("alice", "nas", "success"),
            ("alice", "nas", "failure"),
        ]
        done, failed = (cast("dict[str, object]", entry["details"]) for entry in logins)
        assert (done["login"], done["recorded"]) == (home.sshd.user, True)
        assert str(done["host_key"]).startswith("SHA256:")
        assert failed["login"] == home.sshd.user
        assert "host key" in str(failed["detail"])


async def test_a_key_that_is_replaced_is_used(home: Home) -> None:
    key = home.folder / "alice.key"
    with trio.fail_after(SECONDS):
        async with (
            open_echo() as echo,
            open_relay_daemon(load_relay(home.folder, more=home.users())) as served,
        ):
            target = Target.of(HOST, int(echo.rpartition(":")[2]))
            shutil.move(key, home.folder / "kept")
            async with open_client(served, home) as client:
                with pytest.raises((UnreachableError, TransportDownError), match="key cannot be used"):
                    await client.connect_tcp(target)
                failed = await served.line("ssh failed")
                assert (failed["userId"], "alice.key does not exist" in str(failed["message"])) == (
                    "alice",
                    True,
                )
                shutil.move(home.folder / "kept", key)
                key.chmod(0o644)
                assert await exchange(await client.connect_tcp(target), b"hello") == b"hello"
            assert "chmod 600" in str((await served.line("ssh key"))["message"])


async def test_who_is_no_user_of_the_relay_s_is_told_so(home: Home) -> None:
    server = load_relay(home.folder, more=home.users().replace("users.alice", "users.bob"))
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(server) as served, open_client(served, home) as client:
            with pytest.raises((UnreachableError, TransportDownError), match="knows no way to log in"):
                await client.connect_tcp(Target.of(HOST, 1))
            relay_ssh = served.daemon._relay_ssh  # pyright: ignore[reportPrivateUsage]
            assert relay_ssh is not None
            change_relay_ssh(relay_ssh, load_relay(home.folder, more=home.users()), served.daemon.log)
            with pytest.raises((RefusedError, UnreachableError), match="could not connect"):
                await client.connect_tcp(Target.of(HOST, 1))


async def test_what_is_done_is_recorded_in_the_state_folder(home: Home) -> None:
    server = load_relay(home.folder, more=home.users())
    state = home.folder / "state"
    state.mkdir(mode=0o700)
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(attrs.evolve(server, state=state)):
            assert (state / f"relay-{RECORD}").exists()
        (state / f"relay-{RECORD}").write_bytes(b"no database" * 100)
        with pytest.RaisesGroup(pytest.RaisesExc(ProfileError, match="state")):
            async with open_relay_daemon(attrs.evolve(server, state=state)):
                pass


async def test_requests_that_have_begun_are_done_before_it_ends(home: Home) -> None:
    told, go = trio.Event(), trio.Event()

    async def think(stream: trio.SocketStream) -> None:
        async for _ in stream:
            told.set()
        await go.wait()
        await stream.send_all(b"done")

    state = home.folder / "state"
    state.mkdir(mode=0o700)
    server = attrs.evolve(load_relay(home.folder, more=home.users()), state=state)
    responses: list[Response] = []
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery, open_relay_daemon(server) as served:
            listeners = await nursery.start(partial(trio.serve_tcp, think, 0, host=HOST))
            target = f"{HOST}:{listeners[0].socket.getsockname()[1]}"
            async with open_agent_of(served, home):
                settings = TunnelSettings(
                    dial=DialSettings(endpoints=[Endpoint(url=f"ws://{served.address}")]), mode=Mode.RELAY_SSH
                )
                tokens = SecretTokens(Secret("literal", "", make_token("alice", Scope.CLIENT, tier="gold")))
                async with open_tunnel_service(settings, tokens) as tunnel:

                    async def ask() -> None:
                        responses.append(await tunnel.forward_request(target, b"once"))

                    nursery.start_soon(ask)
                    await tunnel.connect(patient=True)
                    await told.wait()
                    served.stop.set()
                    relay_ssh = served.daemon._relay_ssh  # pyright: ignore[reportPrivateUsage]
                    assert relay_ssh is not None
                    await eventually(lambda: relay_ssh._draining)  # pyright: ignore[reportPrivateUsage]
                    go.set()
                    await eventually(lambda: responses)
                    await served.over.wait()
            nursery.cancel_scope.cancel()
    assert [(each.status, each.payload) for each in responses] == [(Status.DONE, b"done")]


def test_what_the_file_says_is_done(home: Home) -> None:
    more = "[pool]\nwarm = 2\nidle = 7\ncheck = 8\ncompression = true\n[limits]\ngrace = 50\n"
    settings = relay_ssh_settings_of(load_relay(home.folder, more=home.users(more)))
    assert (settings.pool.warm, settings.pool.idle, settings.pool.check) == (2, 7, 8)
    assert settings.session == SessionSettings(grace=50)
    assert settings.clients == SessionSettings(
        grace=50, window=256 * 1024, request_bytes=8 * 1024 * 1024, sessions=256
    )
    assert settings.login.ssh.compression
    assert settings.login.ssh.keepalive_timeout > 50

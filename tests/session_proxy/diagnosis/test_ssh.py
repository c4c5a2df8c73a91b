"""The stages of an ``ssh`` upstream, against a real sshd."""

from __future__ import annotations

import socket
from collections.abc import Generator
from pathlib import Path

import attrs
import pytest

from session_proxy.profile.model import Ssh, SshUpstream
from session_proxy.target import Target
from tests.support.examined import examined_upstream
from tests.support.sshd import Sshd, generate_key, start_sshd
from tests.support.stages import failure_of, outcomes, stage_of
from tunnel_relay.category import Category
from tunnel_relay.stages import Step


@attrs.define(eq=False)
class Bastion:
    """A real sshd, and what logs in to it."""

    server: Sshd
    home: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"HOME": str(self.home)}

    @property
    def upstream(self) -> SshUpstream:
        ssh = Ssh(user=self.server.user, key=str(self.home / "key"), known_hosts=self.home / "known_hosts")
        return SshUpstream(address=Target.of("127.0.0.1", self.server.port), ssh=ssh)

    def with_ssh(self, **changes: object) -> SshUpstream:
        return attrs.evolve(self.upstream, ssh=attrs.evolve(self.upstream.ssh, **changes))


@pytest.fixture
def bastion(tmp_path: Path) -> Generator[Bastion]:
    """Serve until the test ends."""
    public = generate_key(tmp_path / "key")
    with start_sshd(tmp_path / "sshd", authorized=[public]) as server:
        yield Bastion(server, tmp_path)


async def test_all_is_well(bastion: Bastion) -> None:
    stages = (await examined_upstream(bastion.upstream, bastion.environ)).stages

    assert outcomes(stages) == dict.fromkeys(
        ("configuration", "credentials", "names", "reach", "ssh", "echo"), "ok"
    )
    assert stage_of(stages, Step.CREDENTIALS).found == f"SSH key {bastion.home / 'key'}"
    ssh = stage_of(stages, Step.SSH).found
    assert ssh.startswith(f"logged in as {bastion.server.user}, host key ssh-ed25519 SHA256:")
    assert ", new and recorded, round trip " in ssh
    assert ' and says "SSH-2.0-OpenSSH' in stage_of(stages, Step.ECHO).found

    again = await examined_upstream(bastion.upstream, bastion.environ)
    assert "recorded" not in stage_of(again.stages, Step.SSH).found


async def test_a_destination_of_ones_own(bastion: Bastion) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        found = await examined_upstream(bastion.upstream, bastion.environ, target=target)
        assert stage_of(found.stages, Step.ECHO).found.startswith(f"{target} opened in ")
        assert found.exit_code == 0
    stage = failure_of((await examined_upstream(bastion.upstream, bastion.environ, target=target)).stages)
    assert stage.step is Step.ECHO
    assert stage.cause == f"{target}: the SSH server could not connect: Connection refused"
    assert stage.fix == "see whether something listens there, and whether the far end may reach it"


async def test_nothing_listens_there(bastion: Bastion) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        upstream = attrs.evolve(bastion.upstream, address=Target.of("127.0.0.1", port))
        found = await examined_upstream(upstream, bastion.environ)

    assert outcomes(found.stages)["reach"] == "failed"
    stage = failure_of(found.stages)
    assert stage.cause == f"127.0.0.1:{port}: connection refused"
    assert stage.fix == f"start sshd there on port {port}, or correct the port"
    assert found.exit_code == 69


async def test_no_key_file(bastion: Bastion) -> None:
    found = await examined_upstream(bastion.with_ssh(key=str(bastion.home / "none")), bastion.environ)

    stage = failure_of(found.stages)
    assert stage.step is Step.CREDENTIALS
    assert stage.cause.endswith("none does not exist")
    assert stage.fix == "give the path of a private key"
    assert found.exit_code == 78


async def test_a_key_that_others_can_read_and_an_agent_that_does_not_answer(bastion: Bastion) -> None:
    (bastion.home / "key").chmod(0o644)
    found = await examined_upstream(bastion.upstream, bastion.environ)
    stage = stage_of(found.stages, Step.CREDENTIALS)
    assert stage.cause == f"{bastion.home / 'key'} can be read by others (mode 0644)"
    assert (found.outcome, found.exit_code) == ("warning", 0)

    (bastion.home / ".ssh").mkdir()
    (bastion.home / "key").chmod(0o600)
    (bastion.home / "key").rename(bastion.home / ".ssh" / "id_ed25519")
    environ = {**bastion.environ, "SSH_AUTH_SOCK": str(bastion.home / "agent")}
    found = await examined_upstream(bastion.with_ssh(key=None), environ)
    stage = stage_of(found.stages, Step.CREDENTIALS)
    assert stage.cause.startswith(f"no ssh-agent answers on {bastion.home / 'agent'}")
    assert stage.fix == "start it, or unset SSH_AUTH_SOCK"
    assert stage_of(found.stages, Step.ECHO).outcome == "ok"


async def test_a_key_that_the_server_does_not_know(bastion: Bastion) -> None:
    generate_key(bastion.home / "other")
    found = await examined_upstream(bastion.with_ssh(key=str(bastion.home / "other")), bastion.environ)

    stage = failure_of(found.stages)
    assert (stage.step, stage.category) == (Step.SSH, Category.AUTHENTICATION)
    assert found.exit_code == 77
    assert outcomes(found.stages)["echo"] == "skipped"


async def test_a_host_that_is_not_known(bastion: Bastion) -> None:
    found = await examined_upstream(bastion.with_ssh(host_keys="strict"), bastion.environ)

    stage = failure_of(found.stages)
    assert "which is not in" in stage.cause
    assert stage.fix == 'check the fingerprint and add the key, or set host_keys = "accept-new"'
    assert found.exit_code == 77


async def test_a_server_that_forbids_forwarding(tmp_path: Path) -> None:
    public = generate_key(tmp_path / "key")
    with start_sshd(tmp_path / "sshd", authorized=[public], options={"AllowTcpForwarding": "no"}) as server:
        bastion = Bastion(server, tmp_path)
        found = await examined_upstream(bastion.upstream, bastion.environ)

    stage = failure_of(found.stages)
    assert stage.step is Step.ECHO
    assert ": the SSH server forbids forwarding" in stage.cause
    assert stage.fix == "check AllowTcpForwarding and PermitOpen in its sshd_config"
    assert found.exit_code == 77

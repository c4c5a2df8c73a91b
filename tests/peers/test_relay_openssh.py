"""OpenSSH's ssh and scp, and git, through ``sproxy relay-ssh`` to a real sshd."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from tests.support.cable import Cable
from tests.support.relay_command import Command
from tests.support.relay_tunnel import World, open_world
from tests.support.ssh_agent import start_ssh_agent
from tests.support.sshd import SSHD, Sshd, generate_key, start_sshd
from tests.support.tunnels import eventually

pytestmark = pytest.mark.skipif(not SSHD, reason="sshd is not installed")

LIMIT = 60.0


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Generator[Sshd]:
    folder = tmp_path_factory.mktemp("sshd")
    public = generate_key(folder / "id")
    with start_sshd(folder, options={"Subsystem": "sftp internal-sftp"}, authorized=[public]) as server:
        yield server


@attrs.frozen(eq=False)
class Home:
    """A relay, an agent beside an sshd, and how a client's ssh gets there."""

    world: World
    cable: Cable
    sshd: Sshd
    folder: Path

    def command(self, user: str = "alice") -> Command:
        return Command(self.folder, self.cable.address, user)

    def options(self, user: str = "alice") -> list[str]:
        """Return the options of ssh, scp and git's ssh."""
        said = {
            "ProxyCommand": self.command(user).proxy_command,
            "IdentityFile": str(self.sshd.directory / "id"),
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "StrictHostKeyChecking": "accept-new",
            "BatchMode": "yes",
        }
        return ["-F", "none", *(part for key, value in said.items() for part in ("-o", f"{key}={value}"))]

    @property
    def destination(self) -> str:
        return f"{self.sshd.user}@nas"

    async def run(
        self, *argv: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return await trio.run_process(
            list(argv), stdin=stdin, capture_stdout=True, capture_stderr=True, check=False, env=environ
        )

    async def ssh(self, *arguments: str, user: str = "alice", stdin: bytes = b"") -> bytes:
        done = await self.run("ssh", *self.options(user), self.destination, *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout


@asynccontextmanager
async def home(sshd: Sshd, folder: Path) -> AsyncGenerator[Home]:
    with trio.fail_after(LIMIT):
        async with open_world(services={"ssh": ("127.0.0.1", sshd.port)}) as world:
            yield Home(world, await world.lay(), sshd, folder)


async def test_ssh_runs_commands_and_carries_bytes_to_their_end(sshd: Sshd, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    async with home(sshd, tmp_path) as there:
        assert await there.ssh("echo", "hello") == b"hello\n"
        assert await there.ssh("cat", stdin=data) == data
        done = await there.run("ssh", *there.options(), there.destination, "exit 7")
        assert done.returncode == 7
        # ssh has told its ProxyCommand to end, and that has told the agent.
        await eventually(lambda: there.world.agent.offering.sessions == 0)


async def test_scp_copies_both_ways(sshd: Sshd, tmp_path: Path) -> None:
    source, there_and_back = tmp_path / "source", tmp_path / "back"
    far = tmp_path / "far"
    source.write_bytes(os.urandom(2_000_000))
    async with home(sshd, tmp_path) as there:
        for pair in (
            (str(source), f"{there.destination}:{far}"),
            (f"{there.destination}:{far}", str(there_and_back)),
        ):
            done = await there.run("scp", *there.options(), *pair)
            assert done.returncode == 0, done.stderr
    assert there_and_back.read_bytes() == source.read_bytes()


async def test_git_clones(sshd: Sshd, tmp_path: Path) -> None:
    repository, clone = tmp_path / "repository", tmp_path / "clone"
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    await trio.run_process(["git", "init", "-q", str(repository)])
    await trio.run_process(
        ["git", "-C", str(repository), *who, "commit", "-q", "--allow-empty", "-m", "first"]
    )
    async with home(sshd, tmp_path) as there:
        script = tmp_path / "ssh"
        quoted = " ".join(f"'{option}'" for option in there.options())
        script.write_text(f'#!/bin/sh\nexec ssh {quoted} "$@"\n')
        script.chmod(0o700)
        done = await there.run(
            "git",
            "clone",
            "-q",
            f"{there.destination}:{repository}",
            str(clone),
            environ={**os.environ, "GIT_SSH": str(script)},
        )
        assert done.returncode == 0, done.stderr
    said = await trio.run_process(["git", "-C", str(clone), "log", "--format=%s"], capture_stdout=True)
    assert said.stdout == b"first\n"


async def test_a_hop_uses_the_agent_that_ssh_forwards(sshd: Sshd, tmp_path: Path) -> None:
    """The far machine has no key: what it logs in with at the next one is the ssh-agent here."""
    with tempfile.TemporaryDirectory() as folder, start_ssh_agent(Path(folder)) as agent:
        agent.add(str(sshd.directory / "id"))
        async with home(sshd, tmp_path) as there:
            hop = (
                f"ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
                f"-o IdentityFile=none -p {sshd.port} {sshd.user}@127.0.0.1 echo hopped"
            )
            environ = {**os.environ, "SSH_AUTH_SOCK": str(agent.socket)}
            for options, expected in ((["-A"], b"hopped\n"), (["-a"], b"")):
                argv = ["ssh", *there.options(), *options, there.destination, hop]
                assert (await there.run(*argv, environ=environ)).stdout == expected


async def test_an_interactive_session_survives_cuts(sshd: Sshd, tmp_path: Path) -> None:
    async with home(sshd, tmp_path) as there:
        argv = ["ssh", "-tt", *there.options(), there.destination, "stty -echo; echo ready; cat"]
        async with trio.open_nursery() as nursery:
            pipe, null = subprocess.PIPE, subprocess.DEVNULL
            run = partial(trio.run_process, argv, stdin=pipe, stdout=pipe, stderr=null, check=False)
            process: trio.Process = await nursery.start(run)
            assert process.stdin is not None
            assert process.stdout is not None
            said = b""

            async def expect(text: bytes) -> None:
                nonlocal said
                assert process.stdout is not None
                while text not in said:
                    said += await process.stdout.receive_some()
                said = b""

            await expect(b"ready")
            [kept] = there.world.agent.offering._sessions
            there.cable.cut()
            await process.stdin.send_all(b"the client was cut\n")
            await there.world.lay(there.cable.port)
            await expect(b"the client was cut")
            await there.world.cut_agent()
            await process.stdin.send_all(b"the agent was cut\n")
            await expect(b"the agent was cut")
            assert list(there.world.agent.offering._sessions) == [kept]
            await process.stdin.send_all(b"\x04")
            assert await process.wait() == 0


async def test_users_do_not_see_each_other(sshd: Sshd, tmp_path: Path) -> None:
    async with home(sshd, tmp_path) as there:
        assert await there.ssh("echo", "mine") == b"mine\n"
        done = await there.command("mallory").run("relay-ssh", "me@nas")
        assert (done.returncode, done.stdout) == (69, b"")
        assert (
            done.stderr
            == b"sproxy: upstream relay: no agent 'nas' is connected, nor any other of 'mallory'\n"
        )
        done = await there.run("ssh", *there.options("mallory"), there.destination, "echo theirs")
        assert done.returncode == 255
        assert b"no agent 'nas' is connected" in done.stderr

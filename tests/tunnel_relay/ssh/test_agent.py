from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.ssh_agent import SshAgent, start_ssh_agent
from tests.support.sshd import generate_key
from tunnel_relay.errors import SshKeyError
from tunnel_relay.protocol.ssh_fields import Fields, string, uint32
from tunnel_relay.ssh.agent import AgentIdentity, agent_identities, find_agent
from tunnel_relay.ssh.hostkeys import HostKey


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """A real ssh-agent; the value is its socket."""
    with start_ssh_agent(tmp_path) as running:
        yield running.socket


def add(agent: Path, *arguments: str) -> None:
    SshAgent(agent).add(*arguments)


async def test_an_empty_agent_has_no_keys(agent: Path) -> None:
    assert await agent_identities(agent) == []


@pytest.mark.parametrize(
    ("kind", "extra", "algorithm"),
    [
        ("ed25519", (), "ssh-ed25519"),
        ("ecdsa", (), "ecdsa-sha2-nistp256"),
        ("rsa", ("-b", "2048"), "rsa-sha2-512"),
        ("rsa", ("-b", "2048"), "rsa-sha2-256"),
    ],
)
async def test_a_real_agent_lists_and_signs(
    agent: Path, tmp_path: Path, kind: str, extra: tuple[str, ...], algorithm: str
) -> None:
    public = generate_key(tmp_path / "key", kind, extra=extra)
    add(agent, str(tmp_path / "key"))
    (identity,) = await agent_identities(agent)
    assert identity.name == f"ssh-agent: test-{kind}"
    assert HostKey(identity.blob).line == " ".join(public.split()[:2])
    signature = await identity.sign(b"data", algorithm)
    assert Fields(signature).string().decode() == algorithm


async def test_a_locked_agent_and_a_removed_key(agent: Path, tmp_path: Path) -> None:
    generate_key(tmp_path / "key")
    add(agent, str(tmp_path / "key"))
    (identity,) = await agent_identities(agent)
    add(agent, "-D")
    with pytest.raises(SshKeyError, match="would not sign"):
        await identity.sign(b"data", "ssh-ed25519")


async def test_no_agent_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SshKeyError, match=r"no ssh-agent answers on .*none"):
        await agent_identities(tmp_path / "none")


@asynccontextmanager
async def fake_agent(path: Path, answer: bytes) -> AsyncGenerator[None, None]:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)

    listening = trio.socket.socket(socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listening)])
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\0",
        b"HTTP/1.1 400 Bad Request\r\n",
        uint32(5) + b"\x0c\0\0\0\1",
        uint32(1) + b"\x05",
        uint32(0),
        string(b"\x0c\0\0\0\1" + string(b"k")),
    ],
)
async def test_what_is_no_agent_is_found_out(answer: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    async with fake_agent(path, answer):
        with pytest.raises(SshKeyError, match="not an ssh-agent"):
            await agent_identities(path)
        with pytest.raises(SshKeyError):
            await AgentIdentity("x", b"blob", path).sign(b"data", "ssh-ed25519")


async def test_a_key_without_a_comment_is_called_by_its_type(tmp_path: Path) -> None:
    blob = string(b"ssh-ed25519") + string(b"x" * 32)
    async with fake_agent(tmp_path / "a", string(b"\x0c\0\0\0\1" + string(blob) + string(b""))):
        (identity,) = await agent_identities(tmp_path / "a")
    assert identity.name == "ssh-agent: ssh-ed25519"


def test_an_agent_is_found(tmp_path: Path) -> None:
    said = {"SSH_AUTH_SOCK": "/run/agent"}
    assert find_agent(said, tmp_path) == Path("/run/agent")
    assert find_agent({}, tmp_path) is None
    folder = tmp_path / ".gnupg"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "S.gpg-agent.ssh"))
        assert find_agent({}, tmp_path) == folder / "S.gpg-agent.ssh"
        assert find_agent({"XDG_RUNTIME_DIR": str(tmp_path / "run")}, tmp_path) == folder / "S.gpg-agent.ssh"
        assert find_agent({"GNUPGHOME": str(tmp_path / "elsewhere")}, tmp_path) is None
    (tmp_path / "run" / "gnupg").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "run" / "gnupg" / "S.gpg-agent.ssh"))
        found = find_agent({"XDG_RUNTIME_DIR": str(tmp_path / "run")}, tmp_path)
        assert found == tmp_path / "run" / "gnupg" / "S.gpg-agent.ssh"


@pytest.fixture
def gpg_home() -> Iterator[Path]:
    """A folder of GnuPG's with a key to log in with; its agent is stopped afterwards."""
    if shutil.which("gpg") is None or shutil.which("gpg-connect-agent") is None:
        pytest.skip("GnuPG is not installed")
    # The name of a Unix socket is short, and gpg-agent makes it.
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environ = {**os.environ, "GNUPGHOME": folder}

        def run(*argv: str) -> str:
            done = subprocess.run(argv, env=environ, check=True, capture_output=True, text=True)
            return done.stdout

        (home / "gpg-agent.conf").write_text("enable-ssh-support\n")
        run("gpg", "--batch", "--passphrase", "", "--quick-gen-key", "me", "ed25519", "auth", "never")
        listed = run("gpg", "--with-colons", "--with-keygrip", "--list-secret-keys")
        grip = next(line for line in listed.splitlines() if line.startswith("grp:")).split(":")[9]
        (home / "sshcontrol").write_text(f"{grip} 0\n")
        yield home
        run("gpgconf", "--kill", "gpg-agent")


async def test_gpg_agent_lists_and_signs(gpg_home: Path) -> None:
    agent = find_agent({"GNUPGHOME": str(gpg_home)}, Path("/nowhere"))
    assert agent is not None
    (identity,) = await agent_identities(agent)
    assert HostKey(identity.blob).kind == "ssh-ed25519"
    signature = await identity.sign(b"data", "ssh-ed25519")
    assert Fields(signature).string() == b"ssh-ed25519"

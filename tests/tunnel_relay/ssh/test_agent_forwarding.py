"""A real ssh-agent lent to a real sshd; and to a server that asks for more than it gets."""

from __future__ import annotations

import shlex
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.ssh_agent import SshAgent, start_ssh_agent
from tests.support.ssh_peer import SshPeer, open_pair
from tests.support.sshd import HOST, SSHD, Sshd, generate_key, start_sshd
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_agent_gate import AgentGate
from tunnel_relay.protocol.ssh_agent_messages import (
    MAX_MESSAGE,
    failure,
    framed,
    identities_request,
    parse_identities,
)
from tunnel_relay.protocol.ssh_fields import string, uint32
from tunnel_relay.ssh.agent import agent_identities
from tunnel_relay.ssh.agent_forwarding import MOST_CHANNELS, open_agent_forwarding
from tunnel_relay.ssh.hostkeys import KnownHosts
from tunnel_relay.ssh.keys import generate_identity
from tunnel_relay.ssh.session import SshSession, open_ssh_session

ME = generate_identity()
OPEN_AGENT = bytes([number.CHANNEL_OPEN]) + string(b"auth-agent@openssh.com")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[SshAgent]:
    with start_ssh_agent(tmp_path) as running:
        yield running


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    if not SSHD:
        pytest.skip("sshd is not installed")
    with start_sshd(tmp_path / "sshd", authorized=[ME.public_line]) as server:
        yield server


@asynccontextmanager
async def session_to(sshd: Sshd, tmp_path: Path) -> AsyncGenerator[SshSession]:
    stream = await trio.open_tcp_stream(HOST, sshd.port)
    async with open_ssh_session(
        stream,
        user=sshd.user,
        identities=[ME],
        host_keys=KnownHosts(tmp_path / "known_hosts"),
        host="host",
    ) as session:
        yield session


async def said(session: SshSession, command: str) -> tuple[int | None, str]:
    """Return how *command* ended, and what it said."""
    async with await session.run_command(command, forward_agent=True) as running:
        await running.send_eof()
        output = bytearray()
        while data := await running.receive_some():
            output += data
        return await running.wait_exit(), output.decode()


async def test_a_hop_logs_in_with_a_key_that_stays_here(sshd: Sshd, agent: SshAgent, tmp_path: Path) -> None:
    """Ssh from the server to the server, with a key that is only in our agent."""
    public = generate_key(tmp_path / "key")
    sshd.authorize(ME.public_line, public)
    agent.add(str(tmp_path / "key"))
    hop = shlex.join(
        [
            *("ssh", "-F", "none", "-p", str(sshd.port), "-o", "StrictHostKeyChecking=no"),
            *(
                "-o",
                f"UserKnownHostsFile={tmp_path / 'known'}",
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentityFile=none",
            ),
            *(f"{sshd.user}@{HOST}", "echo here"),
        ]
    )
    with trio.fail_after(30):
        async with session_to(sshd, tmp_path) as session:
            async with open_agent_forwarding(session, agent.socket):
                assert await said(session, hop) == (0, "here\n")
            status, _ = await said(session, hop)
            assert status == 255


async def test_a_lent_agent_cannot_be_changed(sshd: Sshd, agent: SshAgent, tmp_path: Path) -> None:
    keys = [generate_key(tmp_path / name) for name in ("one", "two")]
    other = generate_key(tmp_path / "other")
    agent.add(str(tmp_path / "one"))
    agent.add(str(tmp_path / "two"))
    (first, _) = await agent_identities(agent.socket)
    with trio.fail_after(30):
        async with session_to(sshd, tmp_path) as session:
            async with open_agent_forwarding(session, agent.socket):
                assert await said(session, "ssh-add -L") == (0, "".join(f"{key}\n" for key in keys))
                for command in (
                    f"ssh-add {tmp_path / 'other'}",
                    "ssh-add -D",
                    f"ssh-add -d {tmp_path / 'one'}",
                ):
                    status, _ = await said(session, command)
                    assert status == 1
            async with open_agent_forwarding(session, agent.socket, AgentGate(frozenset({first.blob}))):
                assert await said(session, "ssh-add -L") == (0, f"{keys[0]}\n")
    assert agent.list() == keys
    assert other not in agent.list()


async def open_agent_channel(peer: SshPeer, name: int) -> int:
    """Ask for the agent; return the client's number for the channel."""
    await peer.send(OPEN_AGENT, uint32(name) + uint32(1 << 20) + uint32(32768))
    fields = await peer.expect(number.CHANNEL_OPEN_CONFIRMATION)
    assert fields.uint32() == name
    return fields.uint32()


async def test_without_lending_nobody_gets_at_an_agent() -> None:
    async with open_pair() as (_session, peer):
        await peer.send(OPEN_AGENT, uint32(7) + uint32(1) + uint32(1))
        fields = await peer.expect(number.CHANNEL_OPEN_FAILURE)
        assert (fields.uint32(), fields.uint32()) == (7, 1)


async def test_one_conversation_has_many_questions(agent: SshAgent, tmp_path: Path) -> None:
    generate_key(tmp_path / "key")
    agent.add(str(tmp_path / "key"))
    with trio.fail_after(10):
        async with open_pair() as (session, peer), open_agent_forwarding(session, agent.socket):
            theirs = await open_agent_channel(peer, 7)
            for _ in range(2):
                for piece in (framed(identities_request())[:3], framed(identities_request())[3:]):
                    await peer.send_data(theirs, piece)
                fields = await peer.expect(number.CHANNEL_DATA)
                assert fields.uint32() == 7
                assert len(parse_identities(fields.string()[4:])) == 1
            await peer.send_data(theirs, framed(b"\x13"))
            fields = await peer.expect(number.CHANNEL_DATA)
            fields.uint32()
            assert fields.string() == framed(failure())
            await peer.send(bytes([number.CHANNEL_EOF]), uint32(theirs))
            await peer.expect(number.CHANNEL_EOF)


@pytest.mark.parametrize("nonsense", [uint32(MAX_MESSAGE + 1), uint32(0), uint32(9) + b"?"])
async def test_who_talks_nonsense_is_left(agent: SshAgent, nonsense: bytes) -> None:
    with trio.fail_after(10):
        async with open_pair() as (session, peer), open_agent_forwarding(session, agent.socket):
            theirs = await open_agent_channel(peer, 7)
            await peer.send_data(theirs, nonsense)
            await peer.send(bytes([number.CHANNEL_EOF]), uint32(theirs))
            await peer.expect(number.CHANNEL_EOF)
            await peer.expect(number.CHANNEL_CLOSE)


async def test_an_agent_that_is_not_there_has_failed(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with open_pair() as (session, peer), open_agent_forwarding(session, tmp_path / "none"):
            theirs = await open_agent_channel(peer, 7)
            await peer.send_data(theirs, framed(identities_request()))
            fields = await peer.expect(number.CHANNEL_DATA)
            fields.uint32()
            assert fields.string() == framed(failure())


async def test_there_are_only_so_many_conversations(agent: SshAgent) -> None:
    with trio.fail_after(10):
        async with open_pair() as (session, peer), open_agent_forwarding(session, agent.socket):
            for name in range(MOST_CHANNELS):
                await open_agent_channel(peer, name)
            await open_agent_channel(peer, MOST_CHANNELS)
            await peer.expect(number.CHANNEL_EOF)
            await peer.expect(number.CHANNEL_CLOSE)

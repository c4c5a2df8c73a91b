"""Commands on a real OpenSSH server, and on one that does what no real one would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.support.ssh_peer import SshPeer, open_pair
from tests.support.sshd import HOST, SSHD, Sshd, start_sshd
from tunnel_relay.errors import ChannelRefusedError, SshDisconnectedError, SshError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import string, uint32
from tunnel_relay.ssh.hostkeys import KnownHosts
from tunnel_relay.ssh.keys import generate_identity
from tunnel_relay.ssh.session import SshSession, open_ssh_session

ME = generate_identity()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if not SSHD:
        pytest.skip("sshd is not installed")
    options = {"AllowAgentForwarding": "no"}
    with start_sshd(tmp_path_factory.mktemp("sshd"), options=options, authorized=[ME.public_line]) as server:
        yield server


async def test_a_command_is_run(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(20):
        stream = await trio.open_tcp_stream(HOST, sshd.port)
        known = KnownHosts(tmp_path / "known_hosts")
        async with open_ssh_session(
            stream, user=sshd.user, identities=[ME], host_keys=known, host="host"
        ) as session:
            async with await session.run_command("cat; echo error >&2; exit 3") as command:
                await command.send_all(b"over there")
                await command.send_eof()
                assert await command.receive_some() == b"over there"
                assert await command.receive_some() == b""
                assert await command.wait_exit() == 3
            async with await session.run_command("kill -9 $$") as command:
                assert await command.wait_exit() is None
            with pytest.raises(ChannelRefusedError, match="AllowAgentForwarding"):
                await session.run_command("true", forward_agent=True)
            assert session.channels == 0


async def accept_session(peer: SshPeer) -> int:
    """Confirm a session channel; return the client's number for it."""
    fields = await peer.expect(number.CHANNEL_OPEN)
    assert fields.string() == b"session"
    name = fields.uint32()
    numbers = uint32(name) + uint32(name + 100) + uint32(1 << 20) + uint32(32768)
    await peer.send(bytes([number.CHANNEL_OPEN_CONFIRMATION]), numbers)
    return name


async def expect_request(peer: SshPeer, name: int, kind: bytes) -> bytes:
    """Return what comes with a request that wants an answer."""
    fields = await peer.expect(number.CHANNEL_REQUEST)
    assert (fields.uint32(), fields.string(), fields.boolean()) == (name + 100, kind, True)
    return fields.rest()


async def test_a_command_that_is_refused() -> None:
    async with open_pair() as (session, peer), trio.open_nursery() as nursery:

        async def refuse() -> None:
            name = await accept_session(peer)
            assert await expect_request(peer, name, b"exec") == string(b"true")
            await peer.send(bytes([number.CHANNEL_FAILURE]), uint32(name))
            await peer.expect(number.CHANNEL_EOF)
            await peer.expect(number.CHANNEL_CLOSE)

        nursery.start_soon(refuse)
        with pytest.raises(ChannelRefusedError, match="would not run the command"):
            await session.run_command("true")


async def test_a_connection_that_ends_before_the_answer() -> None:
    async with open_pair() as (session, peer), trio.open_nursery() as nursery:

        async def leave() -> None:
            name = await accept_session(peer)
            await expect_request(peer, name, b"exec")
            await peer.stream.aclose()

        nursery.start_soon(leave)
        with pytest.raises(SshDisconnectedError):
            await session.run_command("true")


async def test_what_the_server_asks_of_a_command_is_not_done() -> None:
    async with open_pair() as (session, peer), trio.open_nursery() as nursery:

        async def ask() -> None:
            name = await accept_session(peer)
            await expect_request(peer, name, b"exec")
            await peer.send(bytes([number.CHANNEL_SUCCESS]), uint32(name))
            await peer.send(bytes([number.CHANNEL_REQUEST]), uint32(name), string(b"dance"), b"\1")
            assert (await peer.expect(number.CHANNEL_FAILURE)).uint32() == name + 100
            await peer.send(bytes([number.CHANNEL_CLOSE]), uint32(name))

        nursery.start_soon(ask)
        command = await session.run_command("true")
        assert await command.wait_exit() is None


async def run(session: SshSession) -> None:
    with pytest.raises(SshError):
        await session.run_command("true")


async def test_an_answer_to_no_request_ends_the_connection() -> None:
    async with open_pair() as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(run, session)
        name = await accept_session(peer)
        await expect_request(peer, name, b"exec")
        for _ in range(2):
            await peer.send(bytes([number.CHANNEL_FAILURE]), uint32(name))
        with trio.fail_after(5):
            await session.wait_closed()
        assert "request that nobody made" in str(session.close_reason)
        nursery.cancel_scope.cancel()

"""Sessions against a real OpenSSH server; what no real server would do is in the tests of the parts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.sshd import HOST, Sshd, generate_key, start_sshd
from tunnel_relay.errors import (
    ChannelOpenFailure,
    ChannelRefusedError,
    HostKeyError,
    SshAuthenticationError,
    SshDisconnectedError,
    SshHandshakeError,
)
from tunnel_relay.ssh.agent import agent_identities
from tunnel_relay.ssh.hostkeys import HostKeyPolicy, KnownHosts
from tunnel_relay.ssh.keys import Identity, KeyIdentity, generate_identity, load_key_file
from tunnel_relay.ssh.session import SshSession, open_ssh_session
from tunnel_relay.ssh.settings import SshSettings

KIB = 1024
MIB = 1024 * KIB
ME = generate_identity("my key")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    options = {"MaxSessions": "2"}
    with start_sshd(tmp_path_factory.mktemp("sshd"), options=options, authorized=[ME.public_line]) as sshd:
        yield sshd


@asynccontextmanager
async def session_to(
    sshd: Sshd,
    *identities: Identity,
    host_keys: HostKeyPolicy | None = None,
    settings: SshSettings | None = None,
    general: bool = False,
) -> AsyncGenerator[SshSession, None]:
    stream: trio.abc.Stream = await trio.open_tcp_stream(HOST, sshd.port)
    if general:
        # Not a bare socket: the way of an SSM data channel, a WebSocket, a relay.
        stream = trio.StapledStream(stream, stream)
    async with open_ssh_session(
        stream,
        user=sshd.user,
        identities=identities or [ME],
        host_keys=host_keys or KnownHosts(sshd.directory / "known_hosts"),
        host="sshd",
        settings=settings,
    ) as session:
        yield session


Handler = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def target(handler: Handler) -> AsyncGenerator[int, None]:
    """Serve TCP on the port that this yields."""

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await handler(stream)

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, serve, 0, host=HOST)
        )
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def exhaust(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass


async def echo(stream: trio.SocketStream) -> None:
    async for piece in stream:
        await stream.send_all(piece)
    await stream.send_eof()


async def pump(session: SshSession, port: int, data: bytes) -> str:
    """Send *data* through an echoing target; return the hash of what comes back."""
    digest = hashlib.sha256()
    async with await session.open_direct_tcpip(HOST, port) as channel, trio.open_nursery() as nursery:

        async def send() -> None:
            await channel.send_all(data)
            await channel.send_eof()

        nursery.start_soon(send)
        async for piece in channel:
            digest.update(piece)
    return digest.hexdigest()


# -- what works


async def test_a_session_tells_about_itself(server: Sshd) -> None:
    async with session_to(server) as session:
        assert session.kex in ("mlkem768x25519-sha256", "curve25519-sha256")
        assert session.cipher == "aes256-gcm@openssh.com"
        assert session.host_key.line == server.host_key
        assert session.close_reason is None
        assert 0 < await session.ping() < 5
        statistics = session.statistics()
        assert (statistics.channels, statistics.unsent) == (0, 0)
        assert statistics.round_trip > 0
        assert "key" not in repr(session).lower().replace("host_key", "").replace("hostkey", "")
    assert isinstance(session.close_reason, SshDisconnectedError)


@pytest.mark.parametrize("general", [False, True])
async def test_bytes_and_half_close_both_ways(server: Sshd, general: bool) -> None:
    data = os.urandom(3 * MIB)
    async with session_to(server, general=general) as session, target(echo) as port:
        assert await pump(session, port, data) == hashlib.sha256(data).hexdigest()
        assert session.queued == 0


async def test_channels_pass_the_checks_of_trio(server: Sshd) -> None:
    accepted, waiting = trio.open_memory_channel[trio.SocketStream](1)

    async def hand_over(stream: trio.SocketStream) -> None:
        await accepted.send(stream)
        await trio.sleep_forever()

    async with (
        session_to(server, settings=SshSettings(window=256 * KIB)) as session,
        target(hand_over) as port,
    ):

        async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            channel = await session.open_direct_tcpip(HOST, port)
            return channel, await waiting.receive()

        async def make_clogged() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            channel, stream = await make()
            for one in (channel, stream):
                with trio.move_on_after(0.3):
                    while True:
                        await one.send_all(bytes(64 * KIB))
            return channel, stream

        with trio.fail_after(15):
            await trio.testing.check_half_closeable_stream(make, None)
        channel, stream = await make_clogged()
        with trio.move_on_after(0.1) as waiting_long:
            await channel.wait_send_all_might_not_block()
            await channel.send_all(bytes(16 * MIB))
        assert waiting_long.cancelled_caught
        for one in (channel, stream):
            await trio.aclose_forcefully(one)


async def test_a_stalled_stream_holds_nobody_up(server: Sshd) -> None:
    async def flood(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(bytes(64 * KIB))

    data = os.urandom(4 * MIB)
    async with session_to(server) as session, target(flood) as flooding, target(echo) as echoing:
        stalled = [await session.open_direct_tcpip(HOST, flooding) for _ in range(3)]
        with trio.fail_after(20):
            for _ in range(3):
                assert await pump(session, echoing, data) == hashlib.sha256(data).hexdigest()
            assert await session.ping() < 5
        # What nobody reads is bounded by the windows.
        held = sum(channel.receiving.waiting for channel in stalled)
        assert 0 < held <= 3 * SshSettings().window
        for channel in stalled:
            await channel.aclose()


async def test_a_target_that_does_not_read_makes_the_sender_wait(server: Sshd) -> None:
    async def ignore(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with session_to(server) as session, target(ignore) as port:
        async with await session.open_direct_tcpip(HOST, port) as channel:
            with trio.move_on_after(1) as waiting:
                while True:
                    await channel.send_all(bytes(MIB))
            assert waiting.cancelled_caught
        assert session.queued < MIB


@pytest.mark.parametrize("limits", [("client",), ("server",), ("client", "server")])
async def test_keys_change_under_load(tmp_path: Path, limits: tuple[str, ...]) -> None:
    """20 streams both ways, and new keys every few megabytes, asked for by either side."""
    settings = SshSettings(rekey_bytes=(2 * MIB if "client" in limits else 1 << 40))
    options = {"RekeyLimit": "3M none"} if "server" in limits else {}
    data = [os.urandom(MIB + 1000 * number) for number in range(20)]
    hashes: dict[int, str] = {}
    with start_sshd(tmp_path, options=options, authorized=[ME.public_line]) as sshd:
        async with session_to(sshd, settings=settings) as session, target(echo) as port:
            first = session.key_exchanges

            async def carry(number: int) -> None:
                hashes[number] = await pump(session, port, data[number])

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(carry, number)
            assert session.close_reason is None
            assert session.key_exchanges >= first + 5
    assert hashes == {number: hashlib.sha256(one).hexdigest() for number, one in enumerate(data)}


@pytest.mark.parametrize(
    "options",
    [
        {"Ciphers": "aes128-gcm@openssh.com"},
        {"Ciphers": "aes256-ctr", "MACs": "hmac-sha2-256-etm@openssh.com"},
        {"Ciphers": "aes128-ctr", "MACs": "hmac-sha2-512"},
        {"KexAlgorithms": "ecdh-sha2-nistp384"},
        {"KexAlgorithms": "curve25519-sha256"},
    ],
)
async def test_openssh_agrees_on_each_of_our_algorithms(options: dict[str, str], tmp_path: Path) -> None:
    data = os.urandom(300 * KIB)
    with start_sshd(tmp_path, options=options, authorized=[ME.public_line]) as sshd:
        async with (
            session_to(sshd, settings=SshSettings(rekey_bytes=100 * KIB)) as session,
            target(echo) as port,
        ):
            assert await pump(session, port, data) == hashlib.sha256(data).hexdigest()
            assert {session.kex, session.cipher} & set(options.values())


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_host_and_user_keys_of_every_kind(kind: str, tmp_path: Path) -> None:
    public = generate_key(tmp_path / "key", kind, extra=("-b", "2048") if kind == "rsa" else ())
    with start_sshd(tmp_path / "sshd", authorized=[public], host_key=kind) as sshd:
        (identity,) = await load_key_file(tmp_path / "key")
        async with session_to(sshd, identity) as session:
            assert session.host_key_is_new
        async with session_to(sshd, identity) as session:
            assert not session.host_key_is_new


async def test_a_certificate_logs_in_where_the_key_alone_does_not(tmp_path: Path) -> None:
    ca = generate_key(tmp_path / "ca")
    generate_key(tmp_path / "key", "rsa", extra=("-b", "2048"))
    (tmp_path / "ca.pub").write_text(ca)
    with start_sshd(tmp_path / "sshd", options={"TrustedUserCAKeys": str(tmp_path / "ca.pub")}) as sshd:
        sign = [
            "ssh-keygen",
            "-q",
            "-s",
            str(tmp_path / "ca"),
            "-I",
            "id",
            "-n",
            sshd.user,
            str(tmp_path / "key.pub"),
        ]
        await trio.run_process(sign, capture_stderr=True)
        certificate, plain = await load_key_file(tmp_path / "key")
        async with session_to(sshd, certificate):
            pass
        with pytest.raises(SshAuthenticationError):
            async with session_to(sshd, plain):
                pass


async def test_ssh_agent_logs_in(server: Sshd, tmp_path: Path) -> None:
    other = generate_key(tmp_path / "other", "rsa", extra=("-b", "2048"))
    generate_key(tmp_path / "key")
    path = tmp_path / "a"
    with subprocess.Popen(  # noqa: ASYNC220
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE
    ) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        env = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        for name in ("other", "key"):
            await trio.run_process(["ssh-add", "-q", str(tmp_path / name)], env=env, capture_stderr=True)
        public = (tmp_path / "key.pub").read_text().strip()
        try:
            server.authorize(ME.public_line, public)
            async with session_to(server, *await agent_identities(path)) as session:
                await session.ping()
            assert other.split()[1] not in server.log()
        finally:
            server.authorize(ME.public_line)
            agent.kill()


# -- what is refused


async def test_a_short_rsa_host_key_is_refused_and_not_recorded(tmp_path: Path) -> None:
    key = tmp_path / "host_rsa"
    generate_key(key, "rsa", extra=("-b", "1024"))
    with start_sshd(tmp_path, host_key="rsa") as sshd:
        with pytest.raises(HostKeyError) as caught:
            async with session_to(sshd):
                pass
        assert "the host key of sshd is an RSA key of 1024 bits" in str(caught.value)
        assert "ssh-keygen -t ed25519" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (sshd.directory / "known_hosts").exists()


async def test_a_refused_channel_says_why_and_the_session_goes_on(server: Sshd) -> None:
    async with session_to(server) as session:
        with pytest.raises(ChannelRefusedError) as caught:
            await session.open_direct_tcpip(HOST, 1)
        assert caught.value.code == ChannelOpenFailure.CONNECT_FAILED
        assert "refused" in str(caught.value).lower()
        assert session.channels == 0
        async with target(echo) as port:
            assert await pump(session, port, b"x") == hashlib.sha256(b"x").hexdigest()


async def test_forwarding_may_be_forbidden(tmp_path: Path) -> None:
    with start_sshd(tmp_path, options={"AllowTcpForwarding": "no"}, authorized=[ME.public_line]) as sshd:
        async with session_to(sshd) as session:
            with pytest.raises(ChannelRefusedError) as caught:
                await session.open_direct_tcpip(HOST, 22)
            assert caught.value.code == ChannelOpenFailure.ADMINISTRATIVELY_PROHIBITED


async def test_a_wrong_host_key_is_refused_before_anything_is_said(tmp_path: Path) -> None:
    with start_sshd(tmp_path, options={"LogLevel": "DEBUG1"}, authorized=[ME.public_line]) as sshd:
        known = tmp_path / "known_hosts"
        known.write_text(f"sshd {generate_identity().public_line}\n")
        with pytest.raises(HostKeyError, match=f"changed.*{known}:1"):
            async with session_to(sshd):
                raise AssertionError("nobody should be logged in")
        assert sshd.user not in "".join(line for line in sshd.log().splitlines() if "userauth" in line)


async def test_a_failed_login_names_the_keys_that_were_tried(server: Sshd) -> None:
    keys = [generate_identity("first key"), generate_identity("second key")]
    with pytest.raises(SshAuthenticationError) as caught:
        async with session_to(server, *keys):
            pass
    said = str(caught.value)
    for key in keys:
        assert key.name in said
    assert said.count("SHA256:") == 2
    assert server.user in said
    assert "publickey" in said
    assert "\n" not in said


async def test_a_server_that_has_had_enough_is_quoted(tmp_path: Path) -> None:
    keys = [generate_identity(f"key {number}") for number in range(5)]
    with (
        start_sshd(tmp_path, options={"MaxAuthTries": "2"}) as sshd,
        pytest.raises(SshAuthenticationError, match=r"Too many authentication failures.*key 1"),
    ):
        async with session_to(sshd, *keys):
            pass


async def test_without_keys_one_learns_what_the_server_takes(server: Sshd) -> None:
    stream = await trio.open_tcp_stream(HOST, server.port)
    with pytest.raises(SshAuthenticationError, match=r"no key .* takes: publickey"):
        async with open_ssh_session(
            stream,
            user=server.user,
            identities=[],
            host_keys=KnownHosts(server.directory / "known_hosts"),
            host="sshd",
        ):
            pass


async def test_a_server_with_weak_algorithms_only_is_refused(tmp_path: Path) -> None:
    with (
        start_sshd(tmp_path, options={"Ciphers": "aes128-cbc,3des-cbc"}, authorized=[ME.public_line]) as sshd,
        pytest.raises(SshHandshakeError, match=r"offers only aes128-cbc, 3des-cbc; let it offer aes256-gcm"),
    ):
        async with session_to(sshd):
            pass


# -- ends


async def test_a_server_that_dies_breaks_its_streams(tmp_path: Path) -> None:
    async def flood(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(bytes(64 * KIB))

    with start_sshd(tmp_path, authorized=[ME.public_line]) as sshd:
        async with session_to(sshd) as session, target(flood) as port:
            channel = await session.open_direct_tcpip(HOST, port)
            await channel.receive_some()
            sshd.kill_sessions()
            with (  # noqa: PT012
                trio.fail_after(10),
                pytest.raises(trio.BrokenResourceError, match=r"closed the connection|broke"),
            ):
                while await channel.receive_some():
                    pass
            await session.wait_closed()
            with pytest.raises(trio.BrokenResourceError):
                await channel.send_all(b"x")
            with pytest.raises(SshDisconnectedError):
                await session.open_direct_tcpip(HOST, port)
            with pytest.raises(SshDisconnectedError):
                await session.ping()
            await channel.aclose()
            assert "\n" not in str(session.close_reason)


async def test_what_the_block_raises_comes_out_as_it_is(server: Sshd) -> None:
    with pytest.raises(KeyError):
        async with session_to(server):
            raise KeyError("x")


async def test_a_session_says_goodbye_even_when_it_is_cancelled(tmp_path: Path) -> None:
    with start_sshd(tmp_path, authorized=[ME.public_line]) as sshd:
        for general in (False, True):
            with trio.move_on_after(5) as scope:
                async with session_to(sshd, general=general):
                    scope.cancel()
                    await trio.sleep_forever()
        with trio.fail_after(5):
            while sshd.log().count("disconnected by user") < 2:  # noqa: ASYNC110 - a file tells nobody
                await trio.sleep(0.02)


async def test_an_abandoned_open_leaves_nothing_behind(server: Sshd) -> None:
    opened, count = 0, 30

    async def note(stream: trio.SocketStream) -> None:
        nonlocal opened
        opened += 1
        await stream.receive_some()
        opened -= 1

    async with session_to(server) as session, target(note) as port:
        for _ in range(count):
            with trio.CancelScope() as scope:
                scope.cancel()
                await session.open_direct_tcpip(HOST, port)
        with trio.fail_after(10):
            while session._connection.channels or opened:
                await session.ping()
        assert session.close_reason is None


@pytest.mark.parametrize("step", range(0, 40, 3))
async def test_a_login_may_be_cancelled_anywhere(server: Sshd, step: int) -> None:
    """At the k-th turn of the scheduler; nothing stays behind (pytest turns leaks into errors)."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                for _ in range(step):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(cancel)
            async with session_to(server) as session:
                await session.ping()


async def test_many_streams_come_and_go(server: Sshd) -> None:
    data = [os.urandom(10 * KIB + number) for number in range(100)]
    same: list[bool] = []
    async with session_to(server) as session, target(echo) as port:

        async def carry(one: bytes) -> None:
            same.append(await pump(session, port, one) == hashlib.sha256(one).hexdigest())

        async with trio.open_nursery() as nursery:
            for one in data:
                nursery.start_soon(carry, one)
        with trio.fail_after(5):
            while session._connection.channels:
                await session.ping()
    assert same == [True] * 100


def test_a_key_shows_nothing_secret() -> None:
    assert isinstance(ME, KeyIdentity)
    assert "PRIVATE" not in repr(ME)

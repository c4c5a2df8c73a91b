from __future__ import annotations

import functools
import hashlib
import io
import socket
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import attrs
import paramiko
import pytest
import trio

from session_proxy.errors import ResolutionError
from session_proxy.lab import ssh_server
from session_proxy.lab.authorized_keys import AuthorizedKeys
from session_proxy.lab.files import write_key
from session_proxy.lab.listening import open_sockets
from session_proxy.lab.ssh_server import SshServer
from session_proxy.lab.targets import BLOCK, echo_stream, open_targets
from session_proxy.outbound.ssh_link import refused_channel
from tests.support.lab import open_port
from tests.support.ssh_peer import PinnedHostKeys
from tunnel_relay.background import open_background
from tunnel_relay.errors import ChannelRefusedError, SshAuthenticationError
from tunnel_relay.ssh.hostkeys import HostKey
from tunnel_relay.ssh.keys import Identity, load_key_file
from tunnel_relay.ssh.session import SshSession, open_ssh_session


@attrs.frozen
class Served:
    """A running server, and a key that logs in."""

    port: int
    server: SshServer
    host_key: paramiko.PKey
    identities: tuple[Identity, ...]

    @asynccontextmanager
    async def log_in(self, user: str = "anybody") -> AsyncGenerator[SshSession]:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        pinned = PinnedHostKeys((HostKey(self.host_key.asbytes()),))
        async with open_ssh_session(
            stream, user=user, identities=self.identities, host_keys=pinned, host="lab"
        ) as session:
            yield session


@asynccontextmanager
async def open_server(folder: Path, *, authorize: bool = True) -> AsyncGenerator[Served]:
    line = write_key(folder / "id")
    write_key(folder / "host")
    host_key = paramiko.Ed25519Key.from_private_key(io.StringIO((folder / "host").read_text()))
    keys = AuthorizedKeys()
    if authorize:
        keys.add(line)
    server = SshServer(host_key, keys)
    async with open_background() as nursery:
        sockets = await open_sockets()
        await nursery.start(functools.partial(trio.serve_listeners, server.serve, sockets.tcp))
        yield Served(sockets.port, server, host_key, await load_key_file(folder / "id"))


async def test_bytes_go_both_ways_and_eof_after_them(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with (
            open_server(tmp_path) as served,
            open_port(echo_stream) as port,
            served.log_in() as session,
        ):
            channel = await session.open_direct_tcpip("127.0.0.1", port)
            await channel.send_all(BLOCK)
            await channel.send_eof()
            echoed = b"".join([bytes(data) async for data in channel])

    assert echoed == BLOCK


async def test_many_channels_at_once_are_kept_apart(tmp_path: Path) -> None:
    size = 300_000

    async def fetch(session: SshSession, port: int) -> None:
        channel = await session.open_direct_tcpip("localhost", port)
        async with channel:
            await channel.send_all(b"GET /bytes/%d HTTP/1.1\r\nHost: l\r\nConnection: close\r\n\r\n" % size)
            answer = b"".join([bytes(data) async for data in channel])
            assert hashlib.sha256(answer[-size:]).digest() == expected

    expected = hashlib.sha256(BLOCK[:size]).digest()
    with trio.fail_after(30):
        async with open_server(tmp_path) as served, open_targets() as targets, served.log_in() as session:
            port = int(targets.http.rpartition(":")[2])
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(fetch, session, port)


@contextmanager
def full_listener() -> Generator[int]:
    """Yield a port whose queue is full, so that connecting to it takes for ever."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_what_cannot_be_reached_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(20):
        async with open_server(tmp_path) as served, served.log_in() as session:
            for host, port, code, text in (
                # What OpenSSH's sshd sends in each case.
                ("127.0.0.1", 1, 2, "Connection refused"),
                ("\N{LATIN SMALL LETTER SHARP S}" * 70, 80, 2, "Name or service not known"),
                ("192.0.2.1", 80, 1, "open failed"),
            ):
                with pytest.raises(ChannelRefusedError) as refusal:
                    await session.open_direct_tcpip(host, port)
                assert (refusal.value.code, refusal.value.description) == (code, text), host
            with pytest.raises(ChannelRefusedError) as refusal:
                await session.open_direct_tcpip("no-such-host.invalid", 80)
            # The resolver's own words, which are those of the system.
            assert refusal.value.code == 2
            assert isinstance(refused_channel(refusal.value), ResolutionError)
            monkeypatch.setattr(ssh_server, "CONNECT_TIME", 0.05)
            with full_listener() as port:
                with pytest.raises(ChannelRefusedError) as refusal:
                    await session.open_direct_tcpip("127.0.0.1", port)
                assert (refusal.value.code, refusal.value.description) == (2, "Connection timed out")
            monkeypatch.setattr(ssh_server, "MOST_CHANNELS", 1)
            async with served.log_in() as second, open_port(echo_stream) as port:
                await second.open_direct_tcpip("127.0.0.1", port)
                with pytest.raises(ChannelRefusedError) as refusal:
                    await second.open_direct_tcpip("127.0.0.1", port)
                assert refusal.value.code == 4


async def test_only_authorized_keys_log_in(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_server(tmp_path, authorize=False) as served:
            with pytest.raises(SshAuthenticationError):
                async with served.log_in():
                    pytest.fail("logged in")


async def test_a_channel_that_the_client_closes_closes_its_connection(tmp_path: Path) -> None:
    finished, gone = trio.Event(), trio.Event()

    async def hold(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass
        finished.set()
        # The client has sent its EOF; that it closes the channel shows when writing to it fails.
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"still here")
                await trio.sleep(0.01)
        gone.set()

    with trio.fail_after(20):
        async with open_server(tmp_path) as served, open_port(hold) as port, served.log_in() as session:
            channel = await session.open_direct_tcpip("127.0.0.1", port)
            await channel.send_eof()
            await finished.wait()
            await channel.aclose()
            await gone.wait()


async def test_the_end_of_the_server_ends_sessions_and_threads(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_port(echo_stream) as port, open_background() as nursery:
            opened = trio.Event()
            ended = trio.Event()

            async def use(served: Served) -> None:
                async with served.log_in() as session:
                    channel = await session.open_direct_tcpip("127.0.0.1", port)
                    opened.set()
                    await session.wait_closed()
                    with pytest.raises(trio.BrokenResourceError):
                        await channel.receive_some()
                    ended.set()

            async with open_server(tmp_path) as served:
                nursery.start_soon(use, served)
                await opened.wait()
            await ended.wait()

    assert not [thread for thread in threading.enumerate() if isinstance(thread, paramiko.Transport)]


async def test_a_client_that_speaks_no_ssh_is_let_go(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_server(tmp_path) as served:
            stream = await trio.open_tcp_stream("127.0.0.1", served.port)
            async with stream:
                await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                await stream.send_eof()
                assert (await stream.receive_some()).startswith(b"SSH-2.0-")

"""The ``ssh`` upstream against a real sshd."""

from __future__ import annotations

import random
import socket
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Literal

import attrs
import pytest
import trio

from session_proxy.errors import (
    ExitCode,
    NotAllowedError,
    RefusedError,
    ResolutionError,
)
from session_proxy.events import Event, Notice, UpstreamDown
from session_proxy.outbound.failover import Dialer
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.ssh import open_ssh_transport
from session_proxy.outbound.transport import HealthState, Services
from session_proxy.policy.route_table import RouteTable
from session_proxy.profile.model import Ssh, SshUpstream
from session_proxy.profile.secret import Secret
from session_proxy.target import Target
from tests.support.exchanges import exchange
from tests.support.sshd import Sshd, generate_key, start_sshd


@attrs.define(eq=False)
class Bastion:
    """A real sshd, and what logs in to it."""

    server: Sshd
    home: Path
    events: list[Event] = attrs.field(factory=list[Event])

    @property
    def services(self) -> Services:
        environ = {"HOME": str(self.home)}
        return Services(notify=self.events.append, rng=random.Random(1), environ=environ)

    def upstream(
        self,
        *,
        key: str | None = "key",
        passphrase: Secret | None = None,
        host_keys: Literal["accept-new", "strict"] = "accept-new",
        compression: bool = False,
        port: int | None = None,
    ) -> SshUpstream:
        """Return the upstream with these SSH settings; *key* is a file in the home folder."""
        ssh = Ssh(
            user=self.server.user,
            key=str(self.home / key) if key is not None else None,
            passphrase=passphrase,
            host_keys=host_keys,
            known_hosts=self.home / "known_hosts",
            compression=compression,
        )
        return SshUpstream(address=Target.of("127.0.0.1", port or self.server.port), ssh=ssh)


@pytest.fixture
def bastion(tmp_path: Path) -> Generator[Bastion, None, None]:
    """Serve until the test ends."""
    public = generate_key(tmp_path / "key")
    with start_sshd(tmp_path / "sshd", authorized=[public]) as server:
        yield Bastion(server, tmp_path)


async def echo(stream: trio.SocketStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


async def test_streams_through_a_real_server(bastion: Bastion) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with open_ssh_transport("bastion", bastion.upstream(), bastion.services) as transport:
            stream = await transport.connect_tcp(Target.of("127.0.0.1", port))
            assert isinstance(stream, trio.abc.HalfCloseableStream)
            await stream.send_all(b"hello")
            await stream.send_eof()
            assert b"".join([chunk async for chunk in stream]) == b"hello"
            await stream.aclose()

            assert transport.health().state is HealthState.READY
        nursery.cancel_scope.cancel()
    notices = [event.message for event in bastion.events if isinstance(event, Notice)]
    assert any(notice.startswith("recorded the host key of [127.0.0.1]:") for notice in notices)


@pytest.mark.parametrize("compression", [False, True])
async def test_what_goes_through_may_be_compressed(bastion: Bastion, *, compression: bool) -> None:
    """Both ways: a megabyte of nothing is counted where it passes."""
    nothing = bytes(1_000_000)
    passed = 0

    async def count(near: trio.SocketStream) -> None:
        async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            nonlocal passed
            async for chunk in source:
                passed += len(chunk)
                await sink.send_all(chunk)
            await sink.send_eof()

        far = await trio.open_tcp_stream("127.0.0.1", bastion.server.port)
        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(copy, near, far)
            nursery.start_soon(copy, far, near)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        (counted,) = await nursery.start(partial(trio.serve_tcp, count, 0, host="127.0.0.1"))
        upstream = bastion.upstream(compression=compression, port=counted.socket.getsockname()[1])
        async with open_ssh_transport("bastion", upstream, bastion.services) as transport:
            stream = await transport.connect_tcp(Target.of("127.0.0.1", listener.socket.getsockname()[1]))
            assert await exchange(stream, nothing) == nothing
        nursery.cancel_scope.cancel()
    assert (passed < len(nothing) / 5) == compression


async def test_what_the_server_says_about_destinations(bastion: Bastion) -> None:
    """The texts of a real sshd are understood."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with open_ssh_transport("bastion", bastion.upstream(), bastion.services) as transport:
            with pytest.raises(RefusedError, match="Connection refused"):
                await transport.connect_tcp(Target.of("127.0.0.1", taken.getsockname()[1]))
            with pytest.raises(ResolutionError, match="SSH server could not connect"):
                await transport.connect_tcp(Target.of("no-such-name.invalid", 80))
            assert transport.health().state is HealthState.READY


async def test_forwarding_forbidden(tmp_path: Path) -> None:
    public = generate_key(tmp_path / "key")
    with start_sshd(tmp_path / "sshd", authorized=[public], options={"AllowTcpForwarding": "no"}) as server:
        bastion = Bastion(server, tmp_path)
        async with open_ssh_transport("bastion", bastion.upstream(), bastion.services) as transport:
            with pytest.raises(NotAllowedError, match="AllowTcpForwarding"):
                await transport.connect_tcp(Target.of("127.0.0.1", 1))


async def test_a_server_that_dies_resets_streams_and_is_connected_again(bastion: Bastion) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        target = Target.of("127.0.0.1", listener.socket.getsockname()[1])
        async with open_ssh_transport("bastion", bastion.upstream(), bastion.services) as transport:
            stream = await transport.connect_tcp(target)
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"

            await trio.to_thread.run_sync(bastion.server.kill_sessions)
            with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            # The link had not proven itself for long, so the pool rests a moment first.
            dialer = Dialer(table=RouteTable.build((), "bastion"), transports={"bastion": transport})
            with trio.fail_after(10):
                again = (await dialer.connect(target, await dialer.decide(target))).stream
                await again.send_all(b"again")
                assert await again.receive_some() == b"again"
        nursery.cancel_scope.cancel()
    assert any(isinstance(event, UpstreamDown) for event in bastion.events)


async def refused_start(bastion: Bastion, upstream: SshUpstream) -> LinkFailedError:
    with pytest.raises(LinkFailedError) as caught:
        async with open_ssh_transport("bastion", upstream, bastion.services):
            raise AssertionError
    return caught.value


async def test_nobody_listens(bastion: Bastion) -> None:
    bastion.server.process.kill()
    bastion.server.process.wait()

    failure = await refused_start(bastion, bastion.upstream())

    assert "cannot be reached" in str(failure)
    assert failure.exit_code is ExitCode.UNREACHABLE


async def test_a_key_that_the_server_does_not_take(bastion: Bastion) -> None:
    bastion.server.authorize()

    failure = await refused_start(bastion, bastion.upstream())

    assert failure.exit_code is ExitCode.NOT_PERMITTED


async def test_an_unknown_host_key_in_strict_mode(bastion: Bastion) -> None:
    failure = await refused_start(bastion, bastion.upstream(host_keys="strict"))

    assert failure.exit_code is ExitCode.NOT_PERMITTED
    assert str(bastion.home / "known_hosts") in str(failure)


async def test_a_key_file_that_is_not_there(bastion: Bastion) -> None:
    failure = await refused_start(bastion, bastion.upstream(key="nope"))

    assert "nope does not exist" in str(failure)
    assert failure.exit_code is ExitCode.CONFIGURATION


@pytest.mark.parametrize(("passphrase", "works"), [("open sesame", True), ("wrong", False), (None, False)])
async def test_encrypted_keys(bastion: Bastion, passphrase: str | None, works: bool) -> None:
    public = generate_key(bastion.home / "locked", passphrase="open sesame")
    bastion.server.authorize(public)
    secret = Secret("literal", "", passphrase) if passphrase is not None else None
    upstream = bastion.upstream(key="locked", passphrase=secret)
    if works:
        async with open_ssh_transport("bastion", upstream, bastion.services) as transport:
            assert transport.health().state is HealthState.READY
    else:
        failure = await refused_start(bastion, upstream)
        assert "passphrase" in str(failure)
        assert "sesame" not in str(failure)


async def test_default_keys(bastion: Bastion) -> None:
    """Without a key in the profile those of ~/.ssh are tried; without any, the message says what to do."""
    upstream = bastion.upstream(key=None)
    failure = await refused_start(bastion, upstream)
    assert "no key to log in with" in str(failure)
    assert "[upstreams.bastion.ssh]" in str(failure)

    (bastion.home / ".ssh").mkdir()
    (bastion.home / "key").rename(bastion.home / ".ssh" / "id_ed25519")
    async with open_ssh_transport("bastion", upstream, bastion.services) as transport:
        assert transport.health().state is HealthState.READY

"""The ``ssm`` upstream in the lab: AWS's endpoint, an agent and an SSH server, all on loopback."""

from __future__ import annotations

import hashlib
import math
import os
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.errors import ExitCode, RefusedError
from session_proxy.events import Event, LinksChanged, Notice, UpstreamDown, UpstreamUp
from session_proxy.lab.world import LabSettings, World, open_world
from session_proxy.outbound import ssh_pool
from session_proxy.outbound.failover import Dialer
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.ssh_pool import PoolTransport
from session_proxy.outbound.ssm import open_ssm_transport
from session_proxy.outbound.transport import HealthState, Services
from session_proxy.policy import pool
from session_proxy.policy.route_table import RouteTable
from session_proxy.profile.loading import load_profile
from session_proxy.profile.model import SsmUpstream
from session_proxy.target import Target
from tests.support.sshd import generate_key, start_sshd

# What the lab's HTTP target answers for /bytes/N.
PATTERN = bytes(range(256))


@attrs.define(eq=False)
class Lab:
    """An open lab, its ``ssm`` upstream, and what was told."""

    world: World
    upstream: SsmUpstream
    events: list[Event] = attrs.field(factory=list[Event])
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)

    def notify(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    async def told(self, wanted: Callable[[Event], bool]) -> None:
        """Wait until an event was told that is *wanted*."""
        while not any(map(wanted, self.events)):
            await self._news.wait()

    @property
    def http(self) -> Target:
        return Target.parse(self.world.targets["ssm"].http)

    @property
    def echo(self) -> Target:
        return Target.parse(self.world.targets["ssm"].echo)

    def transport(self, upstream: SsmUpstream | None = None) -> AbstractAsyncContextManager[PoolTransport]:
        services = Services(
            notify=self.notify, rng=random.Random(1), environ={**os.environ, **self.world.environ}
        )
        return open_ssm_transport("dev", upstream or self.upstream, services)

    async def wait_no_sessions(self) -> None:
        """Wait until the gateway and its agents have parted with every session."""
        with trio.fail_after(5):
            while self.world.gateway.sessions:
                await trio.lowlevel.checkpoint()

    def calls(self, operation: str) -> int:
        """How often an operation of AWS was called."""
        return sum(call.operation == operation for call in self.world.calls)


@asynccontextmanager
async def open_lab(directory: Path, settings: LabSettings | None = None) -> AsyncGenerator[Lab, None]:
    async with open_world(directory, settings or LabSettings()) as world:
        upstream = load_profile(world.profile, environ={}).upstreams["ssm"]
        assert isinstance(upstream, SsmUpstream)
        lab = Lab(world, attrs.evolve(upstream, startup="required"))
        yield lab
        # However a test ends: what was started at AWS was ended there.
        await lab.wait_no_sessions()


def ignore(_so_far: int) -> None:
    pass


async def download(
    transport: PoolTransport, target: Target, size: int, notice: Callable[[int], None] = ignore
) -> str:
    """Fetch *size* bytes; return their digest. *notice* is told how many have come."""
    stream = await transport.connect_tcp(target)
    try:
        await stream.send_all(
            f"GET /bytes/{size} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n".encode()
        )
        answer = bytearray()
        async for chunk in stream:
            answer += chunk
            notice(len(answer))
    finally:
        await trio.aclose_forcefully(stream)
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert len(body) == size
    return hashlib.sha256(body).hexdigest()


def expected(size: int) -> str:
    return hashlib.sha256((PATTERN * (size // 256 + 1))[:size]).hexdigest()


async def test_bytes_through_session_manager(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab:
        async with lab.transport() as transport:
            assert transport.health().state is HealthState.READY
            assert transport.health().details[0] == ("via", "i-0123456789abcdef0")
            assert await download(transport, lab.http, 1_000_000) == expected(1_000_000)

            stream = await transport.connect_tcp(lab.echo)
            assert isinstance(stream, trio.abc.HalfCloseableStream)
            await stream.send_all(b"hello")
            await stream.send_eof()
            assert b"".join([chunk async for chunk in stream]) == b"hello"
            await stream.aclose()
        assert lab.calls("StartSession") == 1
        notices = [event.message for event in lab.events if isinstance(event, Notice)]
        assert any(notice.startswith("recorded the host key of [i-0123456789abcdef0]") for notice in notices)


async def test_with_a_real_ssh_server(tmp_path: Path) -> None:
    public = generate_key(tmp_path / "key")
    with start_sshd(tmp_path / "sshd", authorized=[public]) as server:
        settings = LabSettings(
            sshd=Target.of("127.0.0.1", server.port), ssh_user=server.user, ssh_key=tmp_path / "key"
        )
        async with open_lab(tmp_path / "lab", settings) as lab, lab.transport() as transport:
            assert await download(transport, lab.http, 3_000_000) == expected(3_000_000)


async def refused_start(lab: Lab, upstream: SsmUpstream | None = None) -> LinkFailedError:
    with pytest.raises(LinkFailedError) as caught:
        async with lab.transport(upstream):
            raise AssertionError
    return caught.value


@pytest.mark.parametrize(
    ("code", "expected_text", "exit_code"),
    [
        ("AccessDeniedException", "allow that action in the IAM policy", ExitCode.NOT_PERMITTED),
        ("ExpiredTokenException", "have expired; get new ones", ExitCode.NOT_PERMITTED),
        ("TargetNotConnected", "is not connected to Session Manager", ExitCode.UNREACHABLE),
    ],
)
async def test_what_aws_refuses_is_told(
    tmp_path: Path, code: str, expected_text: str, exit_code: ExitCode
) -> None:
    async with open_lab(tmp_path) as lab:
        lab.world.faults.start_error = code
        failure = await refused_start(lab)
        assert expected_text in str(failure)
        # Both instances were tried.
        assert "i-0123456789abcdef0" in str(failure)
        assert "i-0123456789abcdef1: " in str(failure)
        assert failure.exit_code is exit_code


async def test_instances_by_name_and_tag(tmp_path: Path) -> None:
    """The one with the name is not connected; of those with the tag the one that has run longest is next."""
    async with open_lab(tmp_path) as lab:
        upstream = attrs.evolve(lab.upstream, instances=("name:mute", "tag:Role=bastion"))
        async with lab.transport(upstream) as transport:
            assert transport.health().details[0] == ("via", "i-0123456789abcdef0")
        assert any(
            isinstance(event, UpstreamDown) and event.via == "i-0123456789abcdef3" for event in lab.events
        )


async def test_a_tag_that_no_instance_has(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab:
        failure = await refused_start(lab, attrs.evolve(lab.upstream, instances=("tag:Role=nobody",)))
        assert "no running instance has the tag Role=nobody" in str(failure)


async def test_instance_connect(tmp_path: Path) -> None:
    """A fresh key is pushed for each link."""
    async with open_lab(tmp_path) as lab:
        ssh = attrs.evolve(lab.upstream.ssh, key="instance-connect")
        async with lab.transport(attrs.evolve(lab.upstream, ssh=ssh)) as transport:
            assert await download(transport, lab.http, 1000) == expected(1000)
        assert lab.calls("SendSSHPublicKey") == 1


async def test_instance_connect_not_allowed(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab:
        lab.world.faults.push_key_error = "AccessDeniedException"
        ssh = attrs.evolve(lab.upstream.ssh, key="instance-connect")
        failure = await refused_start(lab, attrs.evolve(lab.upstream, ssh=ssh))
        assert "ec2-instance-connect:SendSSHPublicKey" in str(failure)
        assert failure.exit_code is ExitCode.NOT_PERMITTED


async def test_a_cut_websocket_costs_no_byte(tmp_path: Path) -> None:
    size = 20_000_000
    cuts = [size // 4, size // 2, 3 * size // 4]

    def cut(so_far: int) -> None:
        if cuts and so_far >= cuts[0]:
            del cuts[0]
            assert lab.world.cut_websockets(lose=5)

    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        assert await download(transport, lab.http, size, cut) == expected(size)
        assert not cuts
        assert transport.health().state is HealthState.READY
        assert lab.calls("StartSession") == 1


async def test_while_its_session_is_resumed_an_upstream_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_pool, "AWAY_PATIENCE", 0.1)

    def is_warning(event: Event) -> bool:
        return isinstance(event, Notice) and event.level == "warning"

    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        stream = await transport.connect_tcp(lab.echo)
        lab.world.faults.resume_error = "InternalServerError"
        lab.world.cut_websockets()
        with trio.fail_after(20):
            await lab.told(is_warning)
            health = transport.health()
            assert health.state is HealthState.STARTING
            assert health.reason.startswith("resuming the session: ")
            lab.world.faults.resume_error = ""
            await lab.told(lambda event: isinstance(event, Notice) and event.message == "the session goes on")
            assert transport.health().sure
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        assert lab.calls("StartSession") == 1


async def test_a_session_that_aws_ends_resets_its_streams_and_another_follows(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        stream = await transport.connect_tcp(lab.echo)
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"

        lab.world.end_sessions("Terminated by the administrator.")
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()

        dialer = Dialer(table=RouteTable.build((), "dev"), transports={"dev": transport})
        with trio.fail_after(15):
            connected = await dialer.connect(lab.echo, await dialer.decide(lab.echo))
            await connected.stream.send_all(b"again")
            assert await connected.stream.receive_some() == b"again"
        reasons = [event.reason for event in lab.events if isinstance(event, UpstreamDown)]
        assert any("administrator" in reason for reason in reasons), reasons


async def test_the_next_instance_takes_over(tmp_path: Path) -> None:
    first, second = "i-0123456789abcdef0", "i-0123456789abcdef1"
    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        instances = lab.world.instances
        instances[first] = attrs.evolve(instances[first], connected=False)
        lab.world.end_sessions()
        with trio.fail_after(15):
            await lab.told(lambda event: isinstance(event, UpstreamUp) and event.via == second)
        assert await download(transport, lab.http, 1000) == expected(1000)


async def test_streams_are_striped_over_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # However long sessions take on a busy machine: streams wait for them.
    monkeypatch.setattr(pool, "UNTRIED", math.inf)
    monkeypatch.setattr(pool, "GROWTH_PATIENCE", 60.0)
    monkeypatch.setattr(ssh_pool, "GROWTH_PATIENCE", 60.0)
    async with open_lab(tmp_path) as lab:
        async with lab.transport() as transport:
            streams = [await transport.connect_tcp(lab.echo) for _ in range(4)]
            with trio.fail_after(10):
                await lab.told(lambda event: event == LinksChanged("dev", 4))
            assert {load.streams for load in transport._loads().values()} == {1}
            streams += [await transport.connect_tcp(lab.echo) for _ in range(3)]
            for stream in streams:
                await stream.send_all(b"ping")
                assert await stream.receive_some() == b"ping"
        assert lab.calls("StartSession") == 4


async def test_a_refusal_is_the_destinations(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        with pytest.raises(RefusedError, match="the SSH server could not connect: Connection refused"):
            await transport.connect_tcp(Target.of("127.0.0.1", 1))
        assert transport.health().state is HealthState.READY


@pytest.mark.parametrize("after", [0.0, 0.1, 0.3, 0.5, 0.8])
async def test_cancelled_at_any_time_it_leaves_no_session(tmp_path: Path, after: float) -> None:
    """TerminateSession comes on every way out, also while the session is being started."""
    async with open_lab(tmp_path) as lab:
        lab.world.faults.api_delay = 0.2
        with trio.move_on_after(after):
            async with lab.transport():
                await trio.sleep_forever()


async def test_a_message_for_the_customer_reaches_people(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab:
        lab.world.faults.customer_message = "This session is recorded."
        async with lab.transport():
            pass
        assert Notice("dev", "This session is recorded.") in lab.events


async def test_a_session_that_cannot_be_resumed_is_replaced(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        stream = await transport.connect_tcp(lab.echo)
        lab.world.faults.expired = True
        lab.world.cut_websockets()
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with trio.fail_after(10):
            await lab.told(lambda event: isinstance(event, UpstreamDown))
            await transport.wait_usable()
            await transport.connect_tcp(lab.echo)
        assert lab.calls("StartSession") == 2


async def test_many_connections_leave_nothing(tmp_path: Path) -> None:
    """No task, socket or session stays behind."""

    def holding() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), trio.lowlevel.current_statistics().tasks_living

    async def use(transport: PoolTransport, times: int) -> None:
        for number in range(times):
            stream = await transport.connect_tcp(lab.echo)
            if number % 2:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
            await stream.aclose()

    async with open_lab(tmp_path) as lab:
        async with lab.transport() as transport:
            await use(transport, 1)
        await lab.wait_no_sessions()
        before = holding()
        for _ in range(2):
            async with lab.transport() as transport, trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(use, transport, 10)
        # The lab's agents take a moment to part too.
        with trio.fail_after(5):
            while any(now > then for now, then in zip(holding(), before, strict=True)):
                await trio.lowlevel.checkpoint()

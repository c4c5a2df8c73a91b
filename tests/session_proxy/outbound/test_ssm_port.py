"""The ``ssm-port`` upstream in the lab."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.errors import ExitCode, RefusedError
from session_proxy.events import Event, UpstreamDown
from session_proxy.lab.world import LabSettings, World, open_world
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.port_pool import PortTransport
from session_proxy.outbound.ssm_port import open_ssm_port_transport
from session_proxy.outbound.transport import HealthState, Services
from session_proxy.profile.loading import load_profile
from session_proxy.profile.model import SsmPortUpstream
from session_proxy.ssm import mux
from session_proxy.target import Target


@attrs.define(eq=False)
class Lab:
    """An open lab, its ``ssm-port`` upstream, and what was told."""

    world: World
    upstream: SsmPortUpstream
    events: list[Event] = attrs.field(factory=list[Event])

    @property
    def echo(self) -> Target:
        return Target.parse(self.world.targets["ssm-port"].echo)

    @property
    def http(self) -> Target:
        return Target.parse(self.world.targets["ssm-port"].http)

    def transport(self) -> AbstractAsyncContextManager[PortTransport]:
        environ = {**os.environ, **self.world.environ}
        services = Services(notify=self.events.append, rng=random.Random(1), environ=environ)
        return open_ssm_port_transport("db", self.upstream, services)

    def calls(self, operation: str) -> int:
        """How often an operation of AWS was called."""
        return sum(call.operation == operation for call in self.world.calls)


@asynccontextmanager
async def open_lab(directory: Path) -> AsyncGenerator[Lab, None]:
    async with open_world(directory, LabSettings()) as world:
        upstream = load_profile(world.profile, environ={}).upstreams["ssm-port"]
        assert isinstance(upstream, SsmPortUpstream)
        yield Lab(world, attrs.evolve(upstream, startup="required"))
        # However a test ends: what was started at AWS was ended there.
        with trio.fail_after(5):
            while world.gateway.sessions:
                await trio.lowlevel.checkpoint()


async def ask(stream: trio.abc.Stream, text: bytes) -> None:
    """Send *text* to the echo target and wait for all of it."""
    await stream.send_all(text)
    answer = b""
    while len(answer) < len(text):
        piece = await stream.receive_some()
        assert piece
        answer += piece
    assert answer == text


async def test_connections_share_the_session_of_their_destination(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        assert transport.health().state is HealthState.READY
        streams = [await transport.connect_tcp(lab.echo) for _ in range(3)]
        for number, stream in enumerate(streams):
            await ask(stream, b"%d" % number * 50_000)
        # One proved the instance, one leads to the echo target.
        assert lab.calls("StartSession") == 2
        assert transport.health().details == (("via", "i-0123456789abcdef0"), ("sessions", "1"))

        page = await transport.connect_tcp(lab.http)
        await page.send_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        assert b"You have reached the lab" in b"".join([chunk async for chunk in page])
        assert lab.calls("StartSession") == 3


async def test_streams_cannot_be_half_closed(tmp_path: Path) -> None:
    """The agent closes a whole stream when one direction ends, so the stream's type must not promise more."""
    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        stream = await transport.connect_tcp(lab.echo)
        assert not isinstance(stream, trio.abc.HalfCloseableStream)
        await ask(stream, b"hello")
        await stream.aclose()
        await ask(await transport.connect_tcp(lab.echo), b"the session goes on")


async def test_a_connection_that_nobody_reads_holds_up_no_others_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mux, "HELD_UP_AFTER", 0.0)
    monkeypatch.setattr(mux, "UNREAD_LIMIT", 0.5)
    monkeypatch.setattr(mux, "UNREAD_CHECK", 0.1)
    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        stalled, waiting = await transport.connect_tcp(lab.http), await transport.connect_tcp(lab.http)
        await stalled.send_all(b"GET /bytes/30000000 HTTP/1.1\r\nHost: lab\r\n\r\n")
        with trio.fail_after(20):
            while lab.calls("StartSession") == 2:
                await (await transport.connect_tcp(lab.http)).aclose()
            for stream in (await transport.connect_tcp(lab.http), waiting):
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
                assert b"You have reached the lab" in b"".join([chunk async for chunk in stream])
            with pytest.raises(trio.BrokenResourceError, match="nobody read it"):
                await stalled.receive_some()


async def test_a_destination_that_refuses(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        with pytest.raises(RefusedError):
            await transport.connect_tcp(Target.of("127.0.0.1", 1))
        assert transport.health().state is HealthState.READY


async def test_what_aws_refuses_is_told(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab:
        lab.world.faults.start_error = "AccessDeniedException"
        with pytest.raises(LinkFailedError, match="ssm:StartSession") as caught:
            async with lab.transport():
                raise AssertionError
        assert caught.value.exit_code is ExitCode.NOT_PERMITTED


async def test_a_session_that_aws_ends_is_replaced(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        stream = await transport.connect_tcp(lab.echo)
        await ask(stream, b"hello")
        lab.world.end_sessions("Terminated by the administrator.")
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError, match="administrator"):
            await stream.receive_some()
        with trio.fail_after(5):
            await ask(await transport.connect_tcp(lab.echo), b"again")
        assert any(isinstance(event, UpstreamDown) for event in lab.events)


async def test_a_cut_websocket_costs_no_byte(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, lab.transport() as transport:
        stream = await transport.connect_tcp(lab.echo)
        text = random.Random(1).randbytes(3_000_000)
        answer = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, text)
            for mark in (1_000_000, 2_000_000, 3_000_000):
                while len(answer) < mark:
                    piece = await stream.receive_some()
                    assert piece
                    answer += piece
                if mark < len(text):
                    assert lab.world.cut_websockets(lose=5)
        assert answer == text
        await ask(stream, b"still the same")


@pytest.mark.parametrize("after", [0.02, 0.1, 0.3, 0.6])
async def test_cancelled_at_any_time_it_leaves_no_session(tmp_path: Path, after: float) -> None:
    async with open_lab(tmp_path) as lab:
        lab.world.faults.api_delay = 0.1
        with trio.move_on_after(after):
            async with lab.transport() as transport:
                await transport.connect_tcp(lab.echo)
                await trio.sleep_forever()

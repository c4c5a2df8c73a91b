"""A client's tunnel, through a real relay to a real agent."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

import tunnel_relay
from tests.support.relay_tunnel import World, dial, give_token, open_world
from tests.support.tunnels import eventually
from tunnel_relay.agent.running import AgentSettings, open_agent
from tunnel_relay.category import Category
from tunnel_relay.client.service import TunnelEvent, TunnelService, TunnelSettings, open_tunnel_service
from tunnel_relay.dial_events import Linked
from tunnel_relay.dial_settings import DialSettings
from tunnel_relay.errors import OutboxFullError, RequestLostError, TunnelUnavailableError
from tunnel_relay.policy.outbox import OutboxSettings, Priority
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.requests import Status
from tunnel_relay.relay_stream import StreamRefusedError, StreamResetError
from tunnel_relay.stages import Outcome, Step

NOWHERE = DialSettings(endpoints=[Endpoint(url="ws://127.0.0.1:1")])


@asynccontextmanager
async def world(folder: Path) -> AsyncGenerator[World]:
    with trio.fail_after(30):
        async with open_world(folder / "record.db") as there:
            yield there


async def talk(tunnel: TunnelService, data: bytes) -> bytes:
    """Return what comes back of *data* from the echo."""
    async with await tunnel.open_stream("echo") as stream:
        await stream.send_all(data)
        await stream.send_eof()
        return b"".join([chunk async for chunk in stream])


async def test_streams_and_requests_go_through(tmp_path: Path) -> None:
    told: list[TunnelEvent] = []
    async with world(tmp_path) as there:
        settings = TunnelSettings(dial=there.dial, agent="nas")
        async with open_tunnel_service(settings, give_token(), notify=told.append) as tunnel:
            assert not tunnel.state.connected
            await tunnel.connect()
            assert tunnel.state.connected
            assert tunnel.state.relay == f"ws://{there.address}"
            assert await talk(tunnel, b"hello" * 100_000) == b"hello" * 100_000
            response = await tunnel.forward_request("target", b"hello")
            assert (response.status, response.payload) == (Status.DONE, b"HELLO")
            response = await tunnel.forward_request("cellar", b"hello")
            assert response.status is Status.NO_SUCH_TARGET
            metrics = tunnel.metrics
            assert (metrics.requests, metrics.success_rate, metrics.queued) == (2, 0.5, 0)
            assert metrics.errors == {Category.CONFIGURATION: 1}
            assert metrics.latency is not None
            assert 0 < metrics.latency.average <= metrics.latency.p95 <= metrics.latency.p99
            assert metrics.uptime > 0
            assert metrics.round_trip is not None
            assert 0 < metrics.round_trip < 10
        assert [type(event) for event in told] == [Linked]


async def test_an_agent_that_takes_another_s_place_does_not_do_its_requests_again(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        there.target.held = trio.Event()
        settings = TunnelSettings(dial=there.dial, agent="nas")
        services = there.agent.offering.services
        other = AgentSettings(name="nas", services=services, dial=there.dial, record=tmp_path / "other.db")
        async with open_tunnel_service(settings, give_token()) as tunnel, trio.open_nursery() as nursery:
            await tunnel.connect()

            async def ask() -> None:
                with pytest.raises(RequestLostError, match="it was sent to another agent"):
                    await tunnel.forward_request("target", b"once")
                nursery.cancel_scope.cancel()

            nursery.start_soon(ask)
            await eventually(lambda: there.target.heard)
            await there.agent.part("it is being moved")
            there.agent_cable.cut()
            async with open_agent(
                other, give_token(), rng=lambda: 0.5, unix_time=time.time, notify=lambda _event: None
            ):
                await trio.sleep_forever()
        assert there.target.heard == [b"once"]


async def test_a_cut_is_mended_and_counted(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        cable = await there.lay()
        settings = TunnelSettings(dial=dial(cable), agent="nas")
        async with open_tunnel_service(settings, give_token()) as tunnel:
            await tunnel.connect()
            async with await tunnel.open_stream("echo") as stream:
                await stream.send_all(b"before")
                assert await stream.receive_some() == b"before"
                cable.cut()
                await eventually(lambda: not tunnel.state.connected)
                assert tunnel.state.category is Category.NETWORK
                await stream.send_all(b"after")
                await there.lay(cable.port)
                await tunnel.connect(patient=True)
                assert await stream.receive_some() == b"after"
            assert tunnel.metrics.reconnections == 1
            assert tunnel.metrics.errors[Category.NETWORK] >= 1


async def test_who_parts_leaves_nothing_at_the_agent(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        settings = TunnelSettings(dial=there.dial, agent="nas")
        async with open_tunnel_service(settings, give_token()) as tunnel:
            await tunnel.connect()
            stream = await tunnel.open_stream("echo")
            assert there.agent.offering.sessions == 1
            await tunnel.disconnect()
            assert not tunnel.state.connected
            with pytest.raises(StreamResetError, match="the client has disconnected"):
                await stream.receive_some()
            await eventually(lambda: there.agent.offering.sessions == 0)
            await tunnel.disconnect()
            await tunnel.connect()
            assert await talk(tunnel, b"again") == b"again"
        await eventually(lambda: there.agent.offering.sessions == 0)


@pytest.mark.parametrize("patient", [False, True])
async def test_a_token_that_is_not_accepted_is_told_at_once(tmp_path: Path, patient: bool) -> None:
    async def give(*, anew: bool) -> str:
        del anew
        await trio.lowlevel.checkpoint()
        return "x.y.z"

    async with world(tmp_path) as there, open_tunnel_service(TunnelSettings(dial=there.dial), give) as tunnel:
        with pytest.raises(TunnelUnavailableError, match="401") as caught:
            await tunnel.connect(patient=patient)
        assert caught.value.category is Category.AUTHENTICATION


async def test_who_connects_while_another_disconnects_is_connected_then(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        cable = await there.lay()
        cable.cut()
        settings = TunnelSettings(dial=dial(cable), agent="nas")
        async with open_tunnel_service(settings, give_token()) as tunnel, trio.open_nursery() as nursery:
            nursery.start_soon(partial(tunnel.connect, patient=True))
            await eventually(lambda: "refused" in tunnel.state.reason)
            await tunnel.disconnect()
            await there.lay(cable.port)
            await eventually(lambda: tunnel.state.connected)


async def test_why_there_is_no_way_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        async with open_tunnel_service(TunnelSettings(dial=NOWHERE), give_token()) as tunnel:
            with pytest.raises(TunnelUnavailableError, match="Connection refused") as caught:
                await tunnel.connect()
            assert caught.value.category is Category.NETWORK
        settings = TunnelSettings(dial=there.dial, agent="pi")
        async with open_tunnel_service(settings, give_token()) as tunnel:
            with pytest.raises(TunnelUnavailableError, match="no agent 'pi' is connected; there is 'nas'"):
                await tunnel.connect()
            assert tunnel.state.reason == "no agent 'pi' is connected; there is 'nas'"
        async with open_tunnel_service(TunnelSettings(dial=there.dial), give_token("mallory")) as tunnel:
            with pytest.raises(TunnelUnavailableError, match=r"^no agent of 'mallory' is connected$"):
                await tunnel.connect()


async def test_a_stream_that_is_refused_says_why(tmp_path: Path) -> None:
    async with (
        world(tmp_path) as there,
        open_tunnel_service(TunnelSettings(dial=there.dial), give_token()) as tunnel,
    ):
        await tunnel.connect()
        with pytest.raises(StreamRefusedError, match="no service 'cellar' is offered"):
            await tunnel.open_stream("cellar")


async def test_requests_wait_for_a_way_and_the_queue_is_bounded(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        settings = TunnelSettings(dial=there.dial, agent="nas", outbox=OutboxSettings(items=5))
        async with open_tunnel_service(settings, give_token()) as tunnel:
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(tunnel.forward_request, "target", b"%d" % number)
                await eventually(lambda: tunnel.metrics.queued == 5)
                assert tunnel.metrics.pressed
                with pytest.raises(OutboxFullError):
                    await tunnel.forward_request("target", b"too much")
                assert there.target.heard == []
                await tunnel.connect()
            await tunnel.flush()
            assert sorted(there.target.heard) == [b"0", b"1", b"2", b"3", b"4"]
            assert not tunnel.metrics.pressed


async def test_what_is_urgent_is_made_after_the_next_start(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        settings = TunnelSettings(dial=there.dial, agent="nas", file=tmp_path / "outbox.db")
        async with open_tunnel_service(settings, give_token()) as tunnel:
            for priority in (Priority.HIGH, Priority.NORMAL):
                with trio.move_on_after(0.1):
                    await tunnel.forward_request("target", b"urgent", priority=priority)
            assert tunnel.metrics.queued == 1
        async with open_tunnel_service(settings, give_token()) as tunnel:
            assert tunnel.metrics.queued == 1
            await tunnel.connect()
            await tunnel.flush()
        assert there.target.heard == [b"urgent"]


async def test_diagnostics_tell_every_stage(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        endpoints = [*NOWHERE.endpoints, *there.dial.endpoints]
        settings = TunnelSettings(dial=DialSettings(endpoints=endpoints), agent="nas")
        async with open_tunnel_service(settings, give_token()) as tunnel:
            found = await tunnel.run_diagnostics()
            assert not tunnel.state.connected
    assert list(found) == [endpoint.url for endpoint in endpoints]
    bad, good = found.values()
    [failed] = [stage for stage in bad if stage.outcome is Outcome.FAILED]
    assert (failed.step, failed.category) == (Step.REACH, Category.NETWORK)
    assert {stage.outcome for stage in good} <= {Outcome.OK, Outcome.SKIPPED}
    assert good[-1].found.endswith("agent 'nas' answers")


async def test_it_ends_at_once_where_all_is_cancelled(tmp_path: Path) -> None:
    async with world(tmp_path) as there:
        settings = TunnelSettings(dial=there.dial, agent="nas")
        began = 0.0
        with trio.CancelScope() as scope:
            async with open_tunnel_service(settings, give_token()) as tunnel:
                await tunnel.connect()
                began = trio.current_time()
                scope.cancel()
                await trio.sleep_forever()
        assert trio.current_time() - began < 0.9


async def test_the_package_offers_it() -> None:
    assert tunnel_relay.open_tunnel_service is open_tunnel_service
    for name in tunnel_relay.__all__:
        assert getattr(tunnel_relay, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = tunnel_relay.nothing  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]

"""The daemon of an agent, with a real relay: what it offers, tells, counts and remembers."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.errors import ProfileError
from session_proxy.observability.log_settings import LogFormat, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.profile.model import RelayEndpoint
from session_proxy.profile.relay_model import RelayAgent, RelayAgentLimits
from session_proxy.profile.secret import Secret
from session_proxy.supervision.relay_agent import RelayAgentDaemon
from session_proxy.target import Target
from tests.support.relay_clients import open_client
from tests.support.relay_daemon import load_relay, open_relay_daemon
from tests.support.relay_tokens import make_token
from tests.support.tunnels import eventually
from tunnel_relay.background import open_background
from tunnel_relay.relay_stream import StreamRefusedError

SECONDS = 90


def config(url: str, state: Path, **changes: object) -> RelayAgent:
    agent = RelayAgent(
        name="nas",
        token=Secret("literal", "", make_token("alice")),
        endpoints=(RelayEndpoint(url=url),),
        services={"ssh": Target.of("127.0.0.1", 22)},
        limits=RelayAgentLimits(drain=5),
        state=state,
    )
    return attrs.evolve(agent, **changes)


@attrs.define(eq=False)
class Running:
    """An agent's daemon, its log, and how to stop it."""

    daemon: RelayAgentDaemon
    log: list[dict[str, object]]
    stop: trio.Event = attrs.field(factory=trio.Event)
    over: trio.Event = attrs.field(factory=trio.Event)

    def metrics(self) -> dict[str, float]:
        body, _ = self.daemon.render_metrics("")
        lines = [line.rpartition(" ") for line in body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}


@asynccontextmanager
async def running(agent: RelayAgent) -> AsyncGenerator[Running]:
    log: list[dict[str, object]] = []
    logger = make_logger(lambda line: log.append(json.loads(line)), LogSettings(log_format=LogFormat.JSON))
    it = Running(RelayAgentDaemon(agent, logger, {}), log)
    async with open_background() as nursery:

        async def serve(*, task_status: trio.TaskStatus[object]) -> None:
            await it.daemon.serve(it.stop, task_status=task_status)
            it.over.set()

        await nursery.start(serve)
        yield it


async def test_an_agent_is_linked_and_says_so(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_relay_daemon(load_relay(tmp_path)) as served,
            running(config(f"ws://{served.address}", tmp_path / "state" / "deep")) as agent,
        ):
            await eventually(lambda: agent.daemon.obstacles() == {})
            assert served.daemon.status()["agents"] == 1
            status = agent.daemon.status()
            assert (status["agent"], status["linked"], status["relay"]) == (
                "nas",
                True,
                f"ws://{served.address}",
            )
            assert status["services"] == {"ssh": "127.0.0.1:22"}
            assert agent.metrics()["sproxy_agent_linked"] == 1
            assert [line["event"] for line in agent.log] == ["starting", "linked"]
            assert not [line for line in agent.log if agent.daemon.config.token.reveal() in json.dumps(line)]
            assert (tmp_path / "state" / "deep").stat().st_mode & 0o777 == 0o700
            agent.stop.set()
            await agent.over.wait()


async def test_an_agent_without_a_relay_says_why(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with running(config("ws://127.0.0.1:1", tmp_path)) as agent:
            await eventually(lambda: "Connection refused" in agent.daemon.obstacles().get("relay", ""))
            assert agent.daemon.status()["linked"] is False
            assert agent.metrics()['sproxy_agent_errors_total{category="network"}'] >= 1
            assert agent.log[-1]["event"] == "relay not reached"


async def test_streams_may_end_before_the_agent_does(tmp_path: Path) -> None:
    async def wait_for_word(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    with trio.fail_after(SECONDS):
        async with open_background() as nursery, open_relay_daemon(load_relay(tmp_path)) as served:
            listeners = await nursery.start(partial(trio.serve_tcp, wait_for_word, 0, host="127.0.0.1"))
            services = {"ssh": Target.of("127.0.0.1", listeners[0].socket.getsockname()[1])}
            url = f"ws://{served.address}"
            async with (
                running(config(url, tmp_path, services=services)) as agent,
                open_client(url) as client,
            ):
                stream = client.open_stream("ssh")
                await stream.wait_accepted()
                agent.stop.set()
                await stream.send_all(b"still here")
                assert await stream.receive_some() == b"still here"
                assert not agent.over.is_set()
                await stream.aclose()
                await agent.over.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog is silent on Linux alone")
async def test_a_service_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS), socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())
        services = {"ssh": Target.of(*full.getsockname())}
        limits = RelayAgentLimits(connect=0.1)
        async with open_relay_daemon(load_relay(tmp_path)) as served:
            url = f"ws://{served.address}"
            async with (
                running(config(url, tmp_path, services=services, limits=limits)),
                open_client(url) as client,
            ):
                with pytest.raises(StreamRefusedError, match=r"nothing came of it in 0\.1 s"):
                    await client.open_stream("ssh").wait_accepted()


async def test_streams_that_have_no_way_hold_nobody_up(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_background() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, _sleep, 0, host="127.0.0.1"))
            services = {"ssh": Target.of("127.0.0.1", listeners[0].socket.getsockname()[1])}
            limits = RelayAgentLimits(drain=1000)
            async with open_relay_daemon(load_relay(tmp_path)) as served:
                url = f"ws://{served.address}"
                async with (
                    running(config(url, tmp_path, services=services, limits=limits)) as agent,
                    open_client(url) as client,
                ):
                    await client.open_stream("ssh").wait_accepted()
                    served.stop.set()
                    await served.over.wait()
                    await eventually(lambda: agent.daemon.status()["linked"] is False)
                    agent.stop.set()
                    await agent.over.wait()


async def _sleep(_stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProfileError, match="state: "):
        async with running(config("ws://127.0.0.1:1", tmp_path / "file")):
            pass


async def test_authorities_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"ca: .*nowhere"):
        async with running(config("wss://127.0.0.1:1", tmp_path, ca=tmp_path / "nowhere")):
            pass

"""What of an agent.toml may change while its agent runs, and what becomes of what is open."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.errors import Problem, ProfileError, ReloadError
from session_proxy.profile.loading import Warn
from session_proxy.profile.model import Admin, ListenAddress, RelayEndpoint
from session_proxy.profile.relay_model import RelayAgent, RelayAgentLimits
from session_proxy.profile.secret import Secret
from session_proxy.supervision.agent_reload import compare_agents
from session_proxy.supervision.relay_agent import RelayAgentDaemon
from session_proxy.supervision.reload import Reloadable
from session_proxy.target import Target
from tests.session_proxy.supervision.test_relay_agent import config, running
from tests.support.exchanges import exchange
from tests.support.relay_clients import open_client
from tests.support.relay_daemon import load_relay, open_relay_daemon
from tests.support.relay_tokens import make_token
from tests.support.tunnels import echo, eventually
from tunnel_relay.background import open_background
from tunnel_relay.protocol.requests import Request, Status
from tunnel_relay.relay_stream import StreamRefusedError

SECONDS = 90


async def reload(daemon: RelayAgentDaemon, agent: RelayAgent) -> list[str]:
    """Have *daemon* take over *agent*; return what it says has changed."""

    def load(warn: Warn) -> RelayAgent:
        warn("mind the gap")
        return agent

    daemon.load = load
    assert isinstance(daemon, Reloadable)
    async with daemon.prepare() as change:
        assert change.drain == agent.limits.drain
        assert change.commit() == ()
        return change.changes.lines()


@asynccontextmanager
async def open_service() -> AsyncGenerator[Target]:
    """Send back what comes, for the block."""
    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        yield Target.of("127.0.0.1", listeners[0].socket.getsockname()[1])


async def test_other_services_are_offered_and_what_is_open_goes_on(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_service() as service, open_relay_daemon(load_relay(tmp_path)) as served:
            url = f"ws://{served.address}"
            old = config(url, tmp_path, services={"old": service})
            async with running(old) as agent, open_client(url) as client:
                stream = client.open_stream("old")
                await stream.wait_accepted()
                new = attrs.evolve(
                    old,
                    services={"new": service},
                    limits=RelayAgentLimits(drain=7, connect=3, streams=5, heartbeat=7),
                )
                assert await reload(agent.daemon, new) == [
                    "changed: services, limits.streams, limits.connect, limits.heartbeat, limits.drain"
                ]
                assert agent.log[-1]["message"] == "mind the gap"
                with pytest.raises(StreamRefusedError, match="no service 'old' is offered"):
                    await client.open_stream("old").wait_accepted()
                other = client.open_stream("new")
                await other.wait_accepted()
                for each in (stream, other):
                    assert await exchange(each, b"hello") == b"hello"
                reached = await client.wait_ready()
                for name, status in (("old", Status.NO_SUCH_TARGET), ("new", Status.DONE)):
                    answer = await reached.ask(Request(id=name, target=name, payload=b"x", most=10))
                    assert answer.status is status
                assert agent.daemon.status()["services"] == {"new": str(service)}
                running_agent = agent.daemon._agent
                assert running_agent is not None
                assert running_agent.offering.limit == 3
                assert running_agent.offering.settings.streams == 5
                assert running_agent.dialing.settings.link.heartbeat == 7
                assert agent.daemon.status()["linked"]


async def test_another_token_is_shown_at_once(tmp_path: Path) -> None:
    """And streams outlive the change of links."""
    with trio.fail_after(SECONDS):
        async with open_service() as service, open_relay_daemon(load_relay(tmp_path)) as served:
            url = f"ws://{served.address}"
            old = config(url, tmp_path, services={"echo": service})
            async with running(old) as agent, open_client(url) as client:
                stream = client.open_stream("echo")
                await stream.wait_accepted()
                token = Secret("literal", "", make_token("alice", token_id="another"))
                assert await reload(agent.daemon, attrs.evolve(old, token=token)) == ["changed: token"]
                await eventually(lambda: len([line for line in agent.log if line["event"] == "linked"]) == 2)
                assert await exchange(stream, b"hello") == b"hello"
                assert not [line for line in agent.log if token.reveal() in str(line)]


async def test_a_token_that_is_refused_may_be_followed_by_a_better_one(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path)) as served:
            bad = config(f"ws://{served.address}", tmp_path, token=Secret("literal", "", "x.y.z"))
            async with running(bad) as agent:
                await eventually(lambda: "401" in agent.daemon.obstacles().get("relay", ""))
                token = Secret("literal", "", make_token("alice"))
                await reload(agent.daemon, attrs.evolve(bad, token=token))
                await eventually(lambda: agent.daemon.obstacles() == {})


async def test_a_file_that_is_wrong_changes_nothing(tmp_path: Path) -> None:
    def fail(_warn: Warn) -> RelayAgent:
        raise ProfileError(None, [Problem("services", "there is none")])

    with trio.fail_after(SECONDS):
        async with running(config("ws://127.0.0.1:1", tmp_path)) as agent:
            daemon, before = agent.daemon, agent.daemon.config
            with pytest.raises(ReloadError, match="without a file"):
                async with daemon.prepare():
                    pass
            daemon.load = fail
            with pytest.raises(ProfileError, match="there is none"):
                async with daemon.prepare():
                    pass
            with pytest.raises(ReloadError, match=r"^name cannot change while the agent runs; restart it$"):
                await reload(daemon, attrs.evolve(before, name="pi", services={}))
            assert daemon.config is before


def test_what_cannot_change(tmp_path: Path) -> None:
    old = config("ws://127.0.0.1:1", tmp_path / "state")
    others = {
        "name": "pi",
        "endpoints": (RelayEndpoint(url="ws://127.0.0.1:2"),),
        "ca": tmp_path,
        "state": tmp_path,
    }
    for key, value in others.items():
        with pytest.raises(ReloadError, match=f"{key} cannot change while the agent runs; restart it"):
            compare_agents(old, attrs.evolve(old, **{key: value}))
    assert compare_agents(old, attrs.evolve(old, control="other", file=None)).lines() == []
    admin = Admin(listen=ListenAddress("127.0.0.1", 2))
    assert compare_agents(old, attrs.evolve(old, admin=admin)).lines() == ["changed: admin"]

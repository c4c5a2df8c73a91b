"""Profiles opened in the lab, through the dialer as `sproxy run` uses it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.errors import ExitCode, UpstreamStartError
from session_proxy.events import Event, UpstreamDown, ignore
from session_proxy.lab.world import LabSettings, World, open_world
from session_proxy.outbound.failover import open_dialer
from session_proxy.outbound.transport import HealthState, Services
from session_proxy.policy.rules import Rule
from session_proxy.profile.loading import load_profile
from session_proxy.profile.model import Profile, SshUpstream
from session_proxy.target import Target


def services(world: World, events: list[Event] | None = None) -> Services:
    environ = {**os.environ, **world.environ}
    notify = ignore if events is None else events.append
    return Services(notify=notify, rng=random.Random(1), environ=environ)


async def fetch_page(stream: trio.abc.Stream) -> bytes:
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        return b"".join([chunk async for chunk in stream])


async def test_every_kind_of_upstream_reaches_its_targets(tmp_path: Path) -> None:
    async with open_world(tmp_path, LabSettings()) as world:
        profile = load_profile(world.profile, environ={})
        async with open_dialer(profile, services(world)) as dialer:
            assert list(dialer.transports) == ["direct", *profile.upstreams]
            for name, targets in world.targets.items():
                target = Target.parse(targets.http)
                connected = await dialer.connect(target, await dialer.decide(target))
                assert connected.upstream == name
                assert b"You have reached the lab" in await fetch_page(connected.stream)
            assert {health.state for health in dialer.health().values()} == {HealthState.READY}


async def test_a_required_upstream_that_fails_ends_the_start(tmp_path: Path) -> None:
    """Its name, its reason and its exit code are told; the others are closed again."""
    async with open_world(tmp_path, LabSettings()) as world:
        world.faults.start_error = "ExpiredTokenException"
        with pytest.raises(UpstreamStartError) as caught:
            async with open_dialer(load_profile(world.profile, environ={}), services(world)):
                raise AssertionError
        assert caught.value.upstream in ("ssm", "ssm-port")
        assert "AWS credentials have expired" in str(caught.value)
        assert caught.value.exit_code is ExitCode.NOT_PERMITTED


async def test_an_upstream_in_the_background_does_not_hold_up_the_start(tmp_path: Path) -> None:
    """While it is down, the next in the list carries; the reason is told in the health."""
    async with open_world(tmp_path, LabSettings()) as world:
        loaded = load_profile(world.profile, environ={})
        down = SshUpstream(address=Target.of("127.0.0.1", 1), ssh=loaded.upstreams["ssh"].ssh)  # type: ignore[union-attr]
        profile = Profile(upstreams={"down": down}, routes=(Rule.of("*", ["down", "direct"]),))
        events: list[Event] = []
        with trio.fail_after(10):
            async with open_dialer(profile, services(world, events)) as dialer:
                target = Target.parse(world.targets["direct"].http)
                connected = await dialer.connect(target, await dialer.decide(target))
                assert connected.upstream == "direct"
                await connected.stream.aclose()
                assert "refused" in dialer.health()["down"].reason
        assert any(isinstance(event, UpstreamDown) for event in events)


async def test_an_error_in_the_block_comes_out_plain(tmp_path: Path) -> None:
    async with open_world(tmp_path, LabSettings()) as world:
        profile = load_profile(world.profile, environ={})
        profile = attrs.evolve(profile, upstreams={"ssh": profile.upstreams["ssh"]}, routes=())
        with pytest.raises(KeyError):
            async with open_dialer(profile, services(world)):
                raise KeyError


async def test_a_profile_without_upstreams_is_direct() -> None:
    async with open_dialer(Profile(), Services()) as dialer:
        assert list(dialer.transports) == ["direct"]
        decision = await dialer.decide(Target.of("example.com", 443))
        assert decision.upstreams == ("direct",)


def test_what_no_upstream_needs_is_not_imported() -> None:
    """SSH, WebSockets and QUIC cost 0.3 s of a start, and 30 MB."""
    program = (
        "import sys, trio\n"
        "from session_proxy.outbound.failover import open_dialer\n"
        "from session_proxy.outbound.transport import Services\n"
        "from session_proxy.profile.model import Profile\n"
        "async def main():\n"
        "    async with open_dialer(Profile(), Services()):\n"
        "        print(*sorted({'aioquic', 'boto3', 'paramiko', 'qh3', 'trio_websocket'} & sys.modules.keys()))\n"
        "trio.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

"""A route of three transports, of which the first dies while somebody browses, and comes back."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import tomli_w
import trio

from session_proxy.lab.world import LabSettings, World, open_world
from tests.support.cable import serve_cable
from tests.support.sproxy import Sproxy, clean_environ, open_sproxy
from tests.support.udp_relay import open_udp_relay

# Seconds for which a better upstream has to be ready in these tests.
BACK_AFTER = 1.0

# Seconds that somebody may wait who does not wait for a dead path, however busy this machine is: that is known to be
# dead, or given up, much later.
PROMPT = 5.0


def three_ways(world: World, names: tuple[str, ...], **changes: str) -> Path:
    """Write a profile whose connections go by the lab's upstreams of those *names*; *changes* are the first one's."""
    profile: dict[str, Any] = tomllib.loads(world.profile.read_text())
    upstreams: dict[str, Any] = {
        name: {**profile["upstreams"][name], "startup": "required"} for name in names
    }
    upstreams[names[0]] |= changes
    if "ssh" in upstreams:
        upstreams["ssh"]["ssh"]["host_keys"] = "accept-new"
    text = {
        "listen": "127.0.0.1:0",
        "upstreams": upstreams,
        "failover": {"back_after": BACK_AFTER},
        "routes": [{"match": "*", "upstream": list(names)}],
    }
    file = world.directory / "three.toml"
    file.write_text(tomli_w.dumps(text))
    file.chmod(0o600)
    return file


async def browse(sproxy: Sproxy, proxy: object, url: str) -> tuple[str, float]:
    """Fetch *url* with curl; return the upstream that it went through, and how long it took to get there."""
    seen = len(sproxy.lines)
    command = ["curl", "-sS", "--max-time", "20", "-x", f"socks5h://{proxy}", "-o", "/dev/null", "-w"]
    done = await trio.run_process([*command, "%{http_code}", f"http://{url}/"], capture_stdout=True)
    assert done.stdout == b"200"
    line = await sproxy.wait_for("connection", since=seen)
    assert line["outcome"] == "ok"
    return str(line["upstream"]), float(str(line["connect"]))


async def test_the_second_takes_over_at_once_and_the_first_is_gone_back_to(tmp_path: Path) -> None:
    async with open_world(tmp_path / "lab", LabSettings()) as world, trio.open_nursery() as nursery:
        cable = await nursery.start(serve_cable, world.sshd)
        profile = three_ways(world, ("ssh", "awg", "ssm"), address=cable.address)
        environ = clean_environ(tmp_path, **world.environ)
        url = world.targets["direct"].http
        async with open_sproxy(str(profile), environ=environ) as sproxy:
            proxy = (await sproxy.wait_for("ready"))["listen"]
            for _ in range(3):
                assert (await browse(sproxy, proxy, url))[0] == "ssh"

            cable.cut()
            for _ in range(5):
                upstream, seconds = await browse(sproxy, proxy, url)
                assert upstream == "awg"
                assert seconds < PROMPT

            await sproxy.wait_for("upstream down", upstream="ssh")
            await nursery.start(serve_cable, world.sshd, cable.port)
            await sproxy.wait_for("upstream up", since=len(sproxy.lines), upstream="ssh")
            assert (await browse(sproxy, proxy, url))[0] == "awg"
            await sproxy.wait_for("notice", message="ready again: new connections go back to it")
            assert (await browse(sproxy, proxy, url))[0] == "ssh"
        nursery.cancel_scope.cancel()


async def test_a_path_that_falls_silent_is_left_before_it_is_known_to_be_dead(tmp_path: Path) -> None:
    async with open_world(tmp_path / "lab", LabSettings()) as world:
        endpoint = tomllib.loads(world.profile.read_text())["upstreams"]["awg"]["endpoint"]
        host, _, port = endpoint.rpartition(":")
        async with open_udp_relay((host, int(port))) as path:
            profile = three_ways(world, ("awg", "relay", "ssm"), endpoint=f"127.0.0.1:{path.address[1]}")
            environ = clean_environ(tmp_path, **world.environ)
            url = world.targets["direct"].http
            async with open_sproxy(str(profile), environ=environ) as sproxy:
                proxy = (await sproxy.wait_for("ready"))["listen"]
                assert (await browse(sproxy, proxy, url))[0] == "awg"

                path.blackout()
                for _ in range(3):
                    upstream, seconds = await browse(sproxy, proxy, url)
                    assert upstream == "relay"
                    assert seconds < PROMPT

                path.blackout(False)
                upstream = ""
                while upstream != "awg":
                    upstream, seconds = await browse(sproxy, proxy, url)
                    assert seconds < PROMPT

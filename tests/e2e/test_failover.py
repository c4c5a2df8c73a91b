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

# Seconds for which a better upstream has to be ready in these tests.
BACK_AFTER = 1.0


def three_ways(world: World, first: str) -> Path:
    """Write a profile whose connections go through *first*, an SSH server, else by awg, else by ssm."""
    profile: dict[str, Any] = tomllib.loads(world.profile.read_text())
    upstreams = profile["upstreams"]
    upstreams["first"] = {**upstreams["ssh"], "address": first}
    upstreams["first"]["ssh"]["host_keys"] = "accept-new"
    three = {name: upstreams[name] for name in ("first", "awg", "ssm")}
    text = {
        "listen": "127.0.0.1:0",
        "upstreams": {name: {**way, "startup": "required"} for name, way in three.items()},
        "failover": {"back_after": BACK_AFTER},
        "routes": [{"match": "*", "upstream": list(three)}],
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
        profile = three_ways(world, cable.address)
        environ = clean_environ(tmp_path, **world.environ)
        url = world.targets["direct"].http
        async with open_sproxy(str(profile), environ=environ) as sproxy:
            proxy = (await sproxy.wait_for("ready"))["listen"]
            for _ in range(3):
                assert (await browse(sproxy, proxy, url))[0] == "first"

            cable.cut()
            for _ in range(5):
                upstream, seconds = await browse(sproxy, proxy, url)
                assert upstream == "awg"
                assert seconds < 1

            await sproxy.wait_for("upstream down", upstream="first")
            await nursery.start(serve_cable, world.sshd, cable.port)
            await sproxy.wait_for("upstream up", since=len(sproxy.lines), upstream="first")
            assert (await browse(sproxy, proxy, url))[0] == "awg"
            await sproxy.wait_for("notice", message="ready again: new connections go back to it")
            assert (await browse(sproxy, proxy, url))[0] == "first"
        nursery.cancel_scope.cancel()

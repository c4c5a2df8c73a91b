"""A profile that changes under a running sproxy, and under the downloads that go on."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli_w
import trio

from session_proxy.lab.listening import free_port
from session_proxy.lab.world import LabSettings, World, open_world
from tests.support.sproxy import Sproxy, clean_environ, open_sproxy, run_sproxy

# More than fits into all the buffers on the way.
SIZE = 24 << 20
PATTERN = bytes(range(256)) * (SIZE // 256)


@attrs.define(eq=False)
class Site:
    """A profile that is written again and again."""

    file: Path
    text: dict[str, Any]

    def write(self) -> None:
        self.file.write_text(tomli_w.dumps(self.text))
        self.file.chmod(0o600)

    def route(self, target: str, upstream: str) -> None:
        """Let connections to *target* go through *upstream*, whatever the other routes say."""
        host, _, port = target.rpartition(":")
        self.text["routes"].insert(0, {"match": host, "ports": [int(port)], "upstream": upstream})


def site_of(world: World, *names: str) -> Site:
    """Return a profile with the upstreams of those *names*, each with its routes to the lab's targets."""
    profile = tomllib.loads(world.profile.read_text())
    text = {
        "listen": "127.0.0.1:0",
        "upstreams": {name: profile["upstreams"][name] for name in names},
        "routes": [route for route in profile["routes"] if route["upstream"] in names],
    }
    site = Site(world.directory / "site.toml", text)
    site.write()
    return site


async def download(
    proxy: object, target: str, go_on: trio.Event, *, task_status: trio.TaskStatus[None]
) -> None:
    """Download `SIZE` bytes from *target* through *proxy* with curl; it waits after the first until it may *go_on*."""
    command = ["curl", "-sS", "-x", f"socks5h://{proxy}", f"http://{target}/bytes/{SIZE}"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    received = hashlib.sha256()
    async with process.stdout:
        received.update(await process.stdout.receive_some())
        task_status.started()
        await go_on.wait()
        async for chunk in process.stdout:
            received.update(chunk)
    assert await process.wait() == 0
    assert received.digest() == hashlib.sha256(PATTERN).digest()


async def upstream_of(sproxy: Sproxy, proxy: object, target: str) -> object:
    """Fetch a page of *target* with curl; return the upstream that it went through."""
    seen = len(sproxy.lines)
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", f"socks5h://{proxy}"]
    done = await trio.run_process([*command, f"http://{target}/"], capture_stdout=True)
    assert done.stdout == b"200"
    return (await sproxy.wait_for("connection", since=seen, target=target, outcome="ok"))["upstream"]


async def test_downloads_survive_a_change_of_everything_around_them(tmp_path: Path) -> None:
    """A route more, another port, and one upstream less: that of a download, too."""
    async with open_world(tmp_path / "lab", LabSettings()) as world, trio.open_nursery() as nursery:
        site, environ = site_of(world, "ssh", "awg"), clean_environ(tmp_path, **world.environ)
        other = world.targets["direct"].http
        async with open_sproxy(str(site.file), environ=environ) as sproxy:
            old = (await sproxy.wait_for("ready"))["listen"]
            assert await upstream_of(sproxy, old, other) == "direct"
            go_on = trio.Event()
            await nursery.start(download, old, world.targets["ssh"].http, go_on)
            await nursery.start(download, old, world.targets["awg"].http, go_on)

            new = f"127.0.0.1:{free_port(random.SystemRandom())}"
            del site.text["upstreams"]["awg"]
            site.text |= {"listen": new, "admin": {"listen": "127.0.0.1:0"}}
            site.text["routes"] = [each for each in site.text["routes"] if each["upstream"] == "ssh"]
            site.route(other, "ssh")
            site.write()
            done = await run_sproxy("reload", str(site.file), environ=environ)

            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.splitlines() == ["changed: listen, admin, routes", "upstream awg: removed"]
            assert await upstream_of(sproxy, new, other) == "ssh"
            with pytest.raises(OSError, match="all attempts"):
                await trio.open_tcp_stream("127.0.0.1", int(str(old).rpartition(":")[2]))
            status = json.loads((await run_sproxy("status", "--json", environ=environ)).stdout)
            assert (status["listen"], list(status["upstreams"])) == ([new], ["direct", "ssh"])
            assert len(status["admin"]) == 1
            assert status["connections"]["open"] == 2, "the downloads go on"

            go_on.set()
            for name in ("ssh", "awg"):
                line = await sproxy.wait_for("connection", target=world.targets[name].http)
                assert (line["outcome"], line["upstream"]) == ("ok", name)
            assert not [line for line in sproxy.lines if line["event"] == "upstream down"]


async def test_a_wrong_file_changes_nothing_and_says_all(tmp_path: Path) -> None:
    environ = clean_environ(tmp_path)
    file = tmp_path / "dev.toml"
    file.write_text('listen = "127.0.0.1:0"\n')
    async with open_sproxy(str(file), environ=environ) as sproxy:
        before = (await sproxy.wait_for("ready"))["listen"]
        file.write_text('listen = "nowhere"\ndefault = "gone"\n')

        done = await run_sproxy("reload", environ=environ)

        assert (done.returncode, done.stdout) == (78, "")
        first, second = done.stderr.splitlines()
        assert first.startswith(f"sproxy: {file}: listen: ")
        assert second.startswith(f"sproxy: {file}: default: ")

        seen = len(sproxy.lines)
        sproxy.send_signal(signal.SIGHUP)
        for key in ("listen", "default"):
            line = await sproxy.wait_for("not reloaded", since=seen)
            assert (line["level"], str(line["reason"]).startswith(f"{file}: {key}: ")) == ("error", True)
            seen = sproxy.lines.index(line) + 1
        status = json.loads((await run_sproxy("status", "--json", environ=environ)).stdout)
        assert (status["listen"], status["state"]) == ([before], "ready")


async def test_an_upstream_that_does_not_work_changes_nothing(tmp_path: Path) -> None:
    async with open_world(tmp_path / "lab", LabSettings()) as world:
        site, environ = site_of(world, "ssh"), clean_environ(tmp_path, **world.environ)
        target = world.targets["ssh"].http
        async with open_sproxy(str(site.file), environ=environ) as sproxy:
            proxy = (await sproxy.wait_for("ready"))["listen"]
            site.text["upstreams"]["ssh"]["address"] = f"127.0.0.1:{free_port(random.SystemRandom())}"
            site.write()

            done = await run_sproxy("reload", environ=environ)

            assert done.returncode == 69
            [line] = done.stderr.splitlines()
            assert line.startswith("sproxy: upstream ssh: ")
            assert await upstream_of(sproxy, proxy, target) == "ssh"


async def test_a_hang_up_reloads_and_the_environment_is_that_of_the_start(tmp_path: Path) -> None:
    file = tmp_path / "dev.toml"
    file.write_text('listen = "127.0.0.1:0"\n')
    environ = clean_environ(tmp_path, SPROXY_LIMITS_DRAIN="7")
    async with open_sproxy(str(file), environ=environ) as sproxy:
        await sproxy.wait_for("ready")
        file.write_text('listen = "127.0.0.1:0"\n[limits]\ndrain = 3\nidle = 9\n')
        sproxy.send_signal(signal.SIGHUP)
        assert (await sproxy.wait_for("reloaded"))["changes"] == "changed: limits.idle"

        again = await run_sproxy("reload", environ=environ)
        assert again.stdout == "nothing changed\n"
        sproxy.send_signal(signal.SIGTERM)
        assert (await sproxy.wait_for("draining"))["limit"] == 7
        assert await sproxy.wait() == 0


async def test_a_session_whose_key_stays_is_made_anew_when_the_old_one_has_ended(tmp_path: Path) -> None:
    async with open_world(tmp_path / "lab", LabSettings()) as world:
        site, environ = site_of(world, "awg"), clean_environ(tmp_path, **world.environ)
        target = world.targets["awg"].http
        async with open_sproxy(str(site.file), environ=environ) as sproxy:
            proxy = (await sproxy.wait_for("ready"))["listen"]
            assert await upstream_of(sproxy, proxy, target) == "awg"
            site.text["upstreams"]["awg"]["mtu"] = 1400
            site.write()

            done = await run_sproxy("reload", environ=environ)

            assert done.stdout.splitlines() == ["upstream awg: changed (mtu)"]
            assert await upstream_of(sproxy, proxy, target) == "awg"
            assert not [line for line in sproxy.lines if line["event"] == "upstream down"]

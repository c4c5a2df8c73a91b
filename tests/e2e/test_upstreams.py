"""How ``sproxy run`` starts, or does not, with upstreams that work, fail, and come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from session_proxy.lab.files import write_key
from session_proxy.lab.world import LabSettings, open_world
from tests.support.cable import serve_cable
from tests.support.sproxy import Sproxy, clean_environ, open_sproxy, run_sproxy

SSH_PROFILE = """\
listen = "127.0.0.1:0"
default = "bastion"
[admin]
listen = "127.0.0.1:0"
[upstreams.bastion]
kind = "ssh"
address = "{address}"
startup = "{startup}"
[upstreams.bastion.ssh]
user = "lab"
key = "{key}"
known_hosts = "{known_hosts}"
host_keys = "{host_keys}"
"""

SSM_PROFILE = """\
listen = "127.0.0.1:0"
default = "cloud"
[upstreams.cloud]
instances = "{instance}"
[upstreams.cloud.aws]
region = "eu-west-1"
[upstreams.cloud.ssh]
user = "lab"
key = "{key}"
"""


def ssh_profile(
    folder: Path, address: str, known_hosts: str, *, startup: str = "required", host_keys: str = "strict"
) -> Path:
    profile, key = folder / "bastion.toml", folder / "id_ed25519"
    if not key.exists():
        write_key(key)
    text = SSH_PROFILE.format(
        address=address,
        startup=startup,
        key=key,
        known_hosts=folder / known_hosts,
        host_keys=host_keys,
    )
    profile.write_text(text)
    return profile


async def closed_port() -> int:
    """Return a port that nobody listens on, most likely."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        return listener.socket.getsockname()[1]


async def readiness(sproxy: Sproxy) -> dict[str, object]:
    admin = (await sproxy.wait_for("ready"))["admin"]
    command = ["curl", "-sS", "-H", "Accept: application/json", f"http://{admin}/readyz"]
    return json.loads((await trio.run_process(command, capture_stdout=True)).stdout)


async def test_a_bastion_that_refuses_is_one_line_and_69(tmp_path: Path) -> None:
    profile = ssh_profile(tmp_path, f"127.0.0.1:{await closed_port()}", "known_hosts")

    done = await run_sproxy("run", str(profile), "--log-level", "error", environ=clean_environ(tmp_path))

    assert done.returncode == 69
    [line] = done.stderr.splitlines()
    assert line.startswith("sproxy: upstream bastion: ")
    assert "refused" in line


async def test_an_unknown_host_key_is_one_line_and_77(tmp_path: Path) -> None:
    async with open_world(tmp_path / "lab", LabSettings()) as world:
        profile = ssh_profile(world.directory, world.sshd, "nobody_is_known_here")

        done = await run_sproxy("run", str(profile), "--log-level", "error", environ=clean_environ(tmp_path))

    assert done.returncode == 77
    [line] = done.stderr.splitlines()
    assert line.startswith("sproxy: upstream bastion: ")
    assert "check the fingerprint and add the key" in line


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ("ExpiredTokenException", 77, "expired"),
        pytest.param("AccessDeniedException", 77, "ssm:StartSession", marks=pytest.mark.slow),
        pytest.param("TargetNotConnected", 69, "connected", marks=pytest.mark.slow),
    ],
)
async def test_what_aws_refuses_is_one_line_and_its_code(
    tmp_path: Path, fault: str, code: int, says: str
) -> None:
    async with open_world(tmp_path / "lab", LabSettings()) as world:
        world.faults.start_error = fault
        profile = tmp_path / "cloud.toml"
        key = world.directory / "id_ed25519"
        profile.write_text(SSM_PROFILE.format(instance=next(iter(world.instances)), key=key))
        environ = clean_environ(tmp_path, **world.environ)

        done = await run_sproxy("run", str(profile), "--log-level", "error", environ=environ)

    assert done.returncode == code
    [line] = done.stderr.splitlines()
    assert line.startswith("sproxy: upstream cloud: ")
    assert says in line


async def test_without_any_credentials_it_says_how_to_get_some(tmp_path: Path) -> None:
    profile = tmp_path / "cloud.toml"
    profile.write_text(SSM_PROFILE.format(instance="i-0123456789abcdef0", key=tmp_path / "id"))
    write_key(tmp_path / "id")
    environ = clean_environ(tmp_path, AWS_EC2_METADATA_DISABLED="true")

    done = await run_sproxy("run", str(profile), "--log-level", "error", environ=environ)

    assert done.returncode == 77
    [line] = done.stderr.splitlines()
    assert "credentials" in line


async def test_an_upstream_in_the_background_keeps_nobody_waiting(tmp_path: Path) -> None:
    profile = ssh_profile(tmp_path, f"127.0.0.1:{await closed_port()}", "known_hosts", startup="background")

    async with open_sproxy(str(profile), environ=clean_environ(tmp_path)) as sproxy:
        await sproxy.wait_for("upstream down", upstream="bastion")
        assert await readiness(sproxy) == {"ready": True, "reasons": {}}


async def test_a_required_upstream_that_breaks_is_a_reason_not_to_be_ready(tmp_path: Path) -> None:
    async with open_world(tmp_path / "lab", LabSettings()) as world, trio.open_nursery() as nursery:
        cable = await nursery.start(serve_cable, world.sshd)
        profile = ssh_profile(world.directory, cable.address, "known_hosts", host_keys="accept-new")
        async with open_sproxy(str(profile), environ=clean_environ(tmp_path)) as sproxy:
            assert await readiness(sproxy) == {"ready": True, "reasons": {}}

            cable.cut()
            await sproxy.wait_for("upstream down", upstream="bastion")

            now = await readiness(sproxy)
            assert now["ready"] is False
            assert "down: " in str(now["reasons"])

from __future__ import annotations

import gc
import json
import socket
import threading
from pathlib import Path

import paramiko
import pytest
import trio

from session_proxy.lab.documents import SSH, PortSession
from session_proxy.lab.instances import DEFAULT_INSTANCES
from session_proxy.lab.world import LabSettings, open_world
from session_proxy.target import Target
from tests.support.ssm_client import PlainClient

FIRST, SECOND, *_ = DEFAULT_INSTANCES


async def test_the_folder_tells_programs_everything(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "lab"
    async with open_world(folder, LabSettings()) as world:
        ready = json.loads((folder / "ready.json").read_text())
        assert ready["ssm_endpoint"] == world.endpoint
        assert ready["instances"] == [FIRST.id, SECOND.id]
        assert list(ready["targets"]) == ["direct", "ssh", "ssm", "ssm-port", "awg", "relay"]
        assert len({port for pair in ready["targets"].values() for port in pair.values()}) == 12
        for address in (ready["listen"], ready["admin"]):
            host, _, port = address.partition(":")
            with socket.socket() as free:
                free.bind((host, int(port)))
        lines = (folder / "env").read_text().splitlines()
        assert dict(line.split("=", 1) for line in lines) == dict(world.environ)
        assert world.profile.exists()

    assert sorted(path.name for path in folder.iterdir()) == [
        "client.toml",
        "env",
        "host_ed25519",
        "host_ed25519.pub",
        "id_ed25519",
        "id_ed25519.pub",
        "profile.toml",
        "ready.json",
    ]


async def test_a_folder_can_be_used_again(tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text("of an earlier lab")
    for _ in range(2):
        async with open_world(tmp_path, LabSettings()):
            assert not (tmp_path / "known_hosts").exists()


async def test_a_real_sshd_takes_the_place_of_the_embedded_one(tmp_path: Path) -> None:
    key = tmp_path / "key"
    settings = LabSettings(sshd=Target.of("127.0.0.2", 2222), ssh_user="me", ssh_key=key)
    async with open_world(tmp_path / "lab", settings) as world:
        profile = world.profile.read_text()
        assert world.sshd == "127.0.0.2:2222"

    assert 'address = "127.0.0.2:2222"' in profile
    assert "port = 2222" in profile
    assert f'key = "{key}"' in profile
    assert not (tmp_path / "lab" / "id_ed25519").exists()


async def test_a_restarting_agent_ends_sessions_and_is_away_for_a_while(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with open_world(tmp_path, LabSettings()) as world:
            client = PlainClient()
            port = int(world.sshd.rpartition(":")[2])
            async with client.connect(world.gateway.start_session(FIRST, PortSession(SSH, None, port))):
                await client.wait_complete()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(world.restart_agent, 0.2)
                    assert await client.wait_closed() == "The agent is restarting."
                    assert not world.instances[FIRST.id].connected
            assert world.instances[FIRST.id] == FIRST


async def test_websockets_are_cut_and_closed_from_outside(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with open_world(tmp_path, LabSettings()) as world:
            port = int(world.sshd.rpartition(":")[2])
            for end, code in ((world.cut_websockets, 1006), (world.close_websockets, 1001)):
                client = PlainClient()
                async with client.connect(world.gateway.start_session(FIRST, PortSession(SSH, None, port))):
                    await client.wait_complete()
                    assert end() == 1
                    assert (await client.wait_gone()).code == code
            assert world.cut_websockets() == 0
            assert world.end_sessions() == 2


def open_files() -> int:
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files in /proc")
async def test_nothing_is_left_after_the_block(tmp_path: Path) -> None:
    async with open_world(tmp_path, LabSettings()):
        pass
    before = open_files(), threading.active_count()
    for _ in range(3):
        with trio.fail_after(10):
            async with open_world(tmp_path, LabSettings()) as world:
                client = PlainClient()
                port = int(world.sshd.rpartition(":")[2])
                async with client.connect(world.gateway.start_session(FIRST, PortSession(SSH, None, port))):
                    await client.wait_complete()
                    await client.wait_until(lambda client=client: b"SSH-2.0" in client.data)

    assert open_files() <= before[0]
    assert not [thread for thread in threading.enumerate() if isinstance(thread, paramiko.Transport)]


async def test_a_lab_that_ends_does_not_wait_for_its_clients(tmp_path: Path) -> None:
    """This client never answers a close: it reads nothing."""
    upgrade = (
        "GET {path} HTTP/1.1\r\nHost: lab\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with trio.fail_after(10):
        async with open_world(tmp_path, LabSettings()) as world:
            ticket = world.gateway.start_session(FIRST, PortSession(SSH, None, 9))
            host, _, port = world.endpoint.removeprefix("http://").partition(":")
            stream = await trio.open_tcp_stream(host, int(port))
            await stream.send_all(upgrade.format(path=ticket.stream_url.partition(port)[2]).encode())
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
            token = json.dumps({"TokenValue": ticket.token}).encode()
            await stream.send_all(
                bytes([0x81, 0x80 | 126]) + len(token).to_bytes(2, "big") + bytes(4) + token
            )
            assert await stream.receive_some()
            began = trio.current_time()
        took = trio.current_time() - began
        await stream.aclose()

    assert took < 1.5

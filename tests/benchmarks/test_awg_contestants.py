"""Every contestant carries bytes unchanged, on loopback and through a bad network."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest

from benchmarks.arena import Arena
from benchmarks.awg_contestants import Files, Way, starters, straight, through_relay
from benchmarks.contestants import AbsentError
from benchmarks.netem import open_router
from benchmarks.udp_relay import Weather

FILES = Files.new()
STARTERS = starters(FILES)
KIB = 1 << 10
WAYS: dict[str, Way] = {
    "straight": straight,
    "far": partial(through_relay, Weather(delay=0.005, loss=0.01)),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STARTERS)
async def test_bytes_arrive(arena: Arena, tmp_path: Path, name: str, way: str) -> None:
    try:
        async with STARTERS[name](arena, tmp_path, WAYS[way]) as contestant:
            assert contestant.name == name
            assert await arena.download(contestant, 256 * KIB, 4, checked=True) > 0
            assert await arena.upload(contestant, 256 * KIB, 4, checked=True) > 0
            assert await arena.connect_rate(contestant, 32) > 1
            assert contestant.usage().cpu > 0
    except AbsentError as exc:
        pytest.skip(str(exc))


async def test_the_kernel_leads_back_here() -> None:
    """The namespace routes; what netem does in it is the kernel's."""
    try:
        async with open_router(None) as host:
            with (
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
            ):
                server.bind(("0.0.0.0", 0))
                for sock in (server, client):
                    sock.settimeout(5)
                client.sendto(b"ping", (host, server.getsockname()[1]))
                data, address = server.recvfrom(100)
                server.sendto(b"pong", address)
                assert (data, client.recvfrom(100)) == (b"ping", (b"pong", (host, server.getsockname()[1])))
    except AbsentError as exc:
        pytest.skip(str(exc))


def test_keys_are_not_shown() -> None:
    assert str(FILES.server["private_key"]) not in repr(FILES)

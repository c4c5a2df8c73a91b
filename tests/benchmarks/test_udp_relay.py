"""The bad network: what it lets through, and in which order."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import attrs
import pytest

PATIENCE = 5.0


@attrs.define(eq=False)
class Network:
    """A relay, a server behind it, and a client in front."""

    process: subprocess.Popen[str]
    server: socket.socket
    client: socket.socket
    record: Path

    def set(self, **weather: float) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(weather) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def arriving(self, count: int) -> list[bytes]:
        """Have the client send *count* numbered datagrams, and then a last one; return what came before it."""
        for number in range(count):
            self.client.send(b"%d" % number)
        came: list[bytes] = []
        # Sent until it is not lost.
        self.server.settimeout(0.3)
        while True:
            try:
                came.append(self.server.recv(100))
            except TimeoutError:
                return came


@pytest.fixture
def network(tmp_path: Path) -> Generator[Network]:
    record = tmp_path / "record"
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        client.settimeout(PATIENCE)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        argv = [sys.executable, "-m", "benchmarks.udp_relay", address, "--record", str(record)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            client.connect(("127.0.0.1", int(process.stdout.readline())))
            yield Network(process, server, client, record)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(PATIENCE) == 0


def test_datagrams_go_both_ways_and_are_written_down(network: Network) -> None:
    network.client.send(b"ping")
    data, address = network.server.recvfrom(100)
    network.server.sendto(b"pong", address)

    assert (data, network.client.recv(100)) == (b"ping", b"pong")
    entries = [json.loads(line) for line in network.record.read_text().splitlines()]
    assert [(entry["way"], bytes.fromhex(entry["datagram"])) for entry in entries] == [
        ("to-server", b"ping"),
        ("to-client", b"pong"),
    ]


def test_delay_holds_for_each_way(network: Network) -> None:
    network.set(delay=0.1)
    began = time.monotonic()

    network.client.send(b"ping")
    _, address = network.server.recvfrom(100)
    network.server.sendto(b"pong", address)
    network.client.recv(100)

    assert 0.2 <= time.monotonic() - began < PATIENCE


def test_a_share_is_lost(network: Network) -> None:
    network.set(loss=0.3)

    assert 150 < len(network.arriving(300)) < 270


def test_some_come_twice_and_some_late(network: Network) -> None:
    network.set(duplicate=0.2)
    came = network.arriving(100)
    assert len(came) > len(set(came)) == 100

    network.set(duplicate=0, reorder=0.2)
    came = network.arriving(100)
    assert sorted(came, key=int) == [b"%d" % number for number in range(100)] != came


def test_nothing_passes_in_the_dark_and_long_ones_never(network: Network) -> None:
    network.set(dark=True)
    assert network.arriving(3) == []

    network.set(dark=False, largest=1)
    network.client.send(b"long")
    assert network.arriving(3) == [b"0", b"1", b"2"]


def test_clients_may_come_from_elsewhere(network: Network) -> None:
    network.client.send(b"ping")
    _, before = network.server.recvfrom(100)

    network.set(rebind=True)
    network.client.send(b"ping")
    _, after = network.server.recvfrom(100)

    assert before != after

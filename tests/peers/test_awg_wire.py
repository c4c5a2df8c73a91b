"""What an observer of the wire sees of ``sproxy awg-client`` and ``sproxy awg-server``, and what a stranger gets."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import attrs
import pytest

from awg_obfs.protocol.device import Device, DeviceSettings
from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.keys import key_from_text
from awg_obfs.protocol.noise import PrivateKey
from awg_obfs.protocol.parameters import Parameters, parameters_from_mapping
from session_proxy.lab.targets import PAGE
from tests.support.awg_tunnel import Site, Tunnel, open_network, open_tunnel, wait_ready
from tests.support.curl import OK, curl, needs_curl
from tests.support.programs import Lab

READER = Path(__file__).parents[1] / "support" / "awg_capture.py"
# A server that answers does so within milliseconds.
SILENCE = 0.5


@pytest.fixture(scope="module")
def tunnel(tmp_path_factory: pytest.TempPathFactory) -> Generator[Tunnel]:
    """A tunnel whose every datagram is written down."""
    with open_tunnel(tmp_path_factory.mktemp("wire"), record=True) as opened:
        yield opened


@needs_curl
@pytest.mark.parametrize("preset", ["dns", pytest.param("stun", marks=pytest.mark.slow)])
def test_an_independent_reader_finds_what_the_parameters_say(preset: str, lab: Lab, tmp_path: Path) -> None:
    """Signature packets, junk, initiation, answer, and nothing of QUIC or its destination in clear."""
    with open_tunnel(tmp_path, record=True, preset=preset) as tunnel:
        port = lab.target("direct").http.rpartition(":")[2]
        answer = curl("-x", tunnel.proxy, f"http://localhost:{port}/")
        assert (answer.returncode, answer.stdout) == (OK, PAGE), answer.stderr
        assert tunnel.network.record is not None

        # Isolated: not even the folder of our packages is on its path.
        argv = [sys.executable, "-I", str(READER), str(tunnel.network.record), str(tmp_path / "client.toml")]
        read = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert read.returncode == 0, read.stdout + read.stderr


@attrs.define(eq=False)
class Stranger:
    """Somebody who sends to a server's port, and listens what comes back."""

    port: int
    sock: socket.socket

    def send(self, datagrams: Sequence[bytes]) -> None:
        for datagram in datagrams:
            self.sock.sendto(datagram, ("127.0.0.1", self.port))

    def hears(self, patience: float = SILENCE) -> bytes | None:
        """Return the first datagram that comes back, or None after a while."""
        self.sock.settimeout(patience)
        try:
            return self.sock.recv(65535)
        except TimeoutError:
            return None


@pytest.fixture
def stranger(tunnel: Tunnel) -> Generator[Stranger]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield Stranger(tunnel.site.port, sock)


def opening(
    site: Site, change: Callable[[Parameters], Parameters] = lambda p: p, **keys: bytes
) -> list[bytes]:
    """Return what a device sends that begins a handshake with the server of *site*.

    *private_key* and *public_key* replace the client's and the server's key.
    """
    parameters = change(parameters_from_mapping(site.client["awg"]))
    ours = PrivateKey(keys.get("private_key") or key_from_text(site.client["private_key"]))
    device = Device(ours, parameters, DeviceSettings(), os.urandom, time.time_ns, 0.0)
    peer = device.add_peer(
        keys.get("public_key") or key_from_text(site.client["public_key"]),
        key_from_text(site.client["preshared_key"]),
        ("127.0.0.1", site.port),
    )
    device.rehandshake(peer, 0.0)
    return [datagram for outgoing in device.take_outgoing() for datagram in outgoing.datagrams]


def test_a_known_peer_is_answered(tmp_path: Path) -> None:
    """The yardstick: what the other tests send differs from this in one thing only."""
    site = Site.new(tmp_path)
    with site.start_server(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        stranger = Stranger(site.port, sock)

        stranger.send(opening(site))

        answer = stranger.hears()
    assert answer is not None
    assert len(answer) == site.client["awg"]["s2"] + 92


def test_ten_wrong_keys_get_no_answer(tunnel: Tunnel, stranger: Stranger) -> None:
    """Five that the server does not know, and five who do not know the server."""
    for _ in range(5):
        stranger.send(opening(tunnel.site, private_key=os.urandom(32)))
        stranger.send(opening(tunnel.site, public_key=PrivateKey(os.urandom(32)).public))

    assert stranger.hears() is None


def shifted(h: HeaderRange) -> HeaderRange:
    return HeaderRange(h.end + 1, h.end + 1000)


WRONG: dict[str, Callable[[Parameters], Parameters]] = {
    "H1 above": lambda p: attrs.evolve(p, h1=shifted(p.h1)),
    "H1 of WireGuard": lambda p: attrs.evolve(p, h1=HeaderRange(1, 1)),
    "H1 and H4 swapped": lambda p: attrs.evolve(p, h1=p.h4, h4=p.h1),
    "S1 one more": lambda p: attrs.evolve(p, s1=p.s1 + 1),
    "S1 one less": lambda p: attrs.evolve(p, s1=p.s1 - 1),
    "S1 none": lambda p: attrs.evolve(p, s1=0),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_parameters_get_no_answer(tunnel: Tunnel, stranger: Stranger, wrong: str) -> None:
    stranger.send(opening(tunnel.site, WRONG[wrong]))

    assert stranger.hears() is None


def test_random_datagrams_get_no_answer(tunnel: Tunnel, stranger: Stranger) -> None:
    """Of every length, and of the lengths of messages with headers that fit."""
    rng = random.Random(20_251_212)
    awg = tunnel.site.client["awg"]
    for _ in range(500):
        stranger.send([rng.randbytes(rng.randint(0, 1500))])
    for length, padding, header in ((148, "s1", "h1"), (92, "s2", "h2"), (64, "s3", "h3"), (200, "s4", "h4")):
        low = int(str(awg[header]).partition("-")[0])
        for _ in range(50):
            message = low.to_bytes(4, "little") + rng.randbytes(length - 4)
            stranger.send([rng.randbytes(awg[padding]) + message])

    assert stranger.hears() is None


def test_replayed_datagrams_get_no_answer(tunnel: Tunnel, stranger: Stranger) -> None:
    """All that the client has sent, from another address: no answer goes there, and the session stays where it is."""
    sent = [datagram for _, way, datagram in tunnel.network.entries() if way == "to-server"]
    assert len(sent) > 5

    stranger.send(sent)
    stranger.send(sent)

    assert stranger.hears() is None
    assert wait_ready(tunnel.client) < SILENCE


@pytest.mark.slow
def test_a_replay_is_worth_nothing_after_a_restart_either(tmp_path: Path) -> None:
    """The server keeps when each peer shook hands last."""
    site = Site.new(tmp_path)
    record = tmp_path / "capture"
    with (
        site.start_server(),
        open_network(site.port, record) as network,
        site.start_client(network.port) as client,
    ):
        wait_ready(client)
        sent = [datagram for _, way, datagram in network.entries() if way == "to-server"]
    with site.start_server(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        stranger = Stranger(site.port, sock)
        stranger.send(sent)

        assert stranger.hears() is None

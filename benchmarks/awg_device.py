"""What an AmneziaWG device costs without a socket: sealing, opening, handshakes, and what goes in front of them.

``python -m benchmarks.awg_device`` prints one line for each case. All in one thread, best of a few rounds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping

import attrs

from awg_obfs.protocol.device import Device, DeviceSettings
from awg_obfs.protocol.junk import decoys
from awg_obfs.protocol.noise import PrivateKey
from awg_obfs.protocol.parameters import Parameters, parameters_from_mapping
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.randomness import PooledRandomness

CLIENT = ("192.0.2.1", 40000)
SERVER = ("192.0.2.2", 51820)

# QUIC's largest on a path of 1 500 bytes is about this, and a multiple of 16.
DATAGRAM = 1296

# What one wake-up of a busy endpoint brings.
CONTAINER = 32

CASES: Mapping[str, Mapping[str, int | str]] = {
    "plain": {},
    "single headers, S4 = 12": {"s4": 12, "h1": 11, "h2": 12, "h3": 13, "h4": 14},
    "ranges, S4 = 12": {
        "jc": 5,
        "jmin": 40,
        "jmax": 70,
        "s1": 15,
        "s2": 18,
        "s3": 20,
        "s4": 12,
        "h1": "100000-199999",
        "h2": "200000-299999",
        "h3": "300000-399999",
        "h4": "400000-499999",
        "i1": "<b 0xc0ff><t><r 40><rd 10>",
    },
}


@attrs.frozen
class DeviceFigures:
    """Microseconds for each thing; *sealed_and_opened* is how many datagrams a second and core does both to."""

    seal: float
    open: float
    handshake: float
    decoys: float

    @property
    def sealed_and_opened(self) -> float:
        """Datagrams a second that are sealed and opened."""
        return 1e6 / (self.seal + self.open)


class Pair:
    """A client and a server, with the network between them."""

    def __init__(self, parameters: Parameters) -> None:
        keys = PrivateKey(os.urandom(32)), PrivateKey(os.urandom(32))
        settings = DeviceSettings(leading_fill=True)
        random = PooledRandomness(os.urandom)
        self.now = 0.0
        self.client, self.server = (
            Device(key, parameters, settings, random, time.time_ns, self.now) for key in keys
        )
        self.to_server: Peer = self.client.add_peer(keys[1].public, endpoint=SERVER)
        self.to_client: Peer = self.server.add_peer(keys[0].public)

    def exchange(self) -> None:
        """Carry datagrams until nobody has any."""
        while True:
            towards_server = [datagram for out in self.client.take_outgoing() for datagram in out.datagrams]
            towards_client = [datagram for out in self.server.take_outgoing() for datagram in out.datagrams]
            if not towards_server and not towards_client:
                return
            self.server.receive(towards_server, CLIENT, self.now)
            self.client.receive(towards_client, SERVER, self.now)

    def handshake(self) -> None:
        """Agree on new keys, an hour after the last."""
        self.now += 3600.0
        self.client.rehandshake(self.to_server, self.now)
        self.exchange()

    def transfer(self, containers: int, size: int, per_container: int) -> tuple[float, float]:
        """Send from client to server: the seconds it took to seal, and to open."""
        plaintexts = [b"\x40" + os.urandom(size - 1) for _ in range(per_container)]
        sealing = opening = 0.0
        for _ in range(containers):
            started = time.perf_counter()
            self.client.send(self.to_server, plaintexts, self.now)
            (outgoing,) = self.client.take_outgoing()
            sealed = time.perf_counter()
            self.server.receive(outgoing.datagrams, CLIENT, self.now)
            (incoming,) = self.server.take_incoming()
            opened = time.perf_counter()
            assert incoming.plaintexts == plaintexts
            sealing += sealed - started
            opening += opened - sealed
        return sealing, opening


def measure_device(
    parameters: Parameters, *, size: int = DATAGRAM, per_container: int = CONTAINER, rounds: int = 5
) -> DeviceFigures:
    """Measure one case: the best of *rounds*, each of some ten thousand datagrams."""
    pair = Pair(parameters)
    pair.handshake()
    containers = max(1, 16_384 // per_container)
    datagrams = containers * per_container
    transfers = [pair.transfer(containers, size, per_container) for _ in range(rounds)]
    random = PooledRandomness(os.urandom)
    return DeviceFigures(
        seal=min(sealing for sealing, _ in transfers) / datagrams * 1e6,
        open=min(opening for _, opening in transfers) / datagrams * 1e6,
        handshake=_best(pair.handshake, 200, rounds),
        decoys=_best(lambda: decoys(parameters, random, lambda: 0), 1000, rounds),
    )


def _best(action: Callable[[], object], times: int, rounds: int) -> float:
    """Return the microseconds that *action* takes."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(times):
            action()
        best = min(best, time.perf_counter() - started)
    return best / times * 1e6


def lines() -> Iterator[str]:
    """Measure every case, and say what came out."""
    for name, values in CASES.items():
        parameters = parameters_from_mapping(values)
        for per_container in (CONTAINER, 1):
            figures = measure_device(parameters, per_container=per_container)
            yield (
                f"{name}, {per_container} at once: seal {figures.seal:.2f} µs, open {figures.open:.2f} µs, "
                f"{figures.sealed_and_opened:,.0f}/s; handshake {figures.handshake:.0f} µs (both sides), "
                f"junk and signatures {figures.decoys:.1f} µs"
            )


if __name__ == "__main__":
    for line in lines():
        print(line)

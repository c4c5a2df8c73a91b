"""What a datagram costs between two AmneziaWG endpoints: the socket alone, and with the device, on loopback.

All in one thread: what both ends take together. The socket's datagrams are of 1 350 bytes; the session's contents
are of 1 296, which makes as many on the wire.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial

import trio

from awg_obfs.addresses import ANY_IPV4
from awg_obfs.endpoint import open_endpoint
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.device import Device, DeviceSettings
from awg_obfs.protocol.messages import Buffer
from awg_obfs.protocol.noise import PrivateKey
from awg_obfs.protocol.parameters import Parameters, parameters_from_mapping
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.randomness import PooledRandomness
from awg_obfs.udp import UdpSocket
from benchmarks.awg_device import CASES
from benchmarks.measures import Figure, Scale
from benchmarks.tournament import Outcome, Row

LOOPBACK: Address = ("127.0.0.1", 0)
SIZE = 1350
BURSTS = 300

# What a busy endpoint sends and reads at once, and what a slow stream does.
AT_ONCE = (32, 8)
PLAIN = "sendto, recvfrom"
OFFLOADED, PORTABLE = "our socket", "without offload"

Move = Callable[[Sequence[bytes]], tuple[float, float]]


def best(move: Move, per_burst: int) -> float:
    """Return the microseconds that a datagram takes to be sent and received."""
    datagrams = [os.urandom(SIZE) for _ in range(per_burst)]
    return sum(sum(move(datagrams)) for _ in range(BURSTS)) * 1e6 / (BURSTS * per_burst)


def plain(per_burst: int) -> float:
    """One system call per datagram, and nothing else."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(LOOPBACK)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        target = receiver.getsockname()

        def move(datagrams: Sequence[bytes]) -> tuple[float, float]:
            started = time.perf_counter()
            for datagram in datagrams:
                sender.sendto(datagram, target)
            sent = time.perf_counter()
            for _ in datagrams:
                receiver.recvfrom(65535)
            return sent - started, time.perf_counter() - sent

        return best(move, per_burst)


async def sockets(per_burst: int, *, offload: bool) -> float:
    """The endpoint's socket, without an endpoint."""
    await trio.lowlevel.checkpoint()
    with (
        closing(UdpSocket(LOOPBACK, offload=offload)) as sender,
        closing(UdpSocket(LOOPBACK, offload=offload)) as receiver,
    ):

        def move(datagrams: Sequence[bytes]) -> tuple[float, float]:
            started = time.perf_counter()
            sender.send(receiver.address, datagrams)
            sent = time.perf_counter()
            count = 0
            while count < len(datagrams):
                count += sum(len(group) for _, group in receiver.receive_batch())
            return sent - started, time.perf_counter() - sent

        return best(move, per_burst)


async def session(parameters: Parameters, per_burst: int, *, offload: bool) -> float:
    """Return the microseconds that a datagram takes from one endpoint's caller to the other's receiver."""
    keys = PrivateKey(os.urandom(32)), PrivateKey(os.urandom(32))
    settings = DeviceSettings(leading_fill=True)
    random = PooledRandomness(os.urandom)
    client, server = (
        Device(key, parameters, settings, random, time.time_ns, trio.current_time()) for key in keys
    )
    count = 0
    came = trio.Event()

    def receive(_peer: Peer, plaintexts: Sequence[Buffer]) -> None:
        nonlocal count
        count += len(plaintexts)
        came.set()

    server.add_peer(keys[0].public)
    async with (
        open_endpoint(server, LOOPBACK, receive, offload=offload) as serving,
        open_endpoint(client, ANY_IPV4, receive, offload=offload) as using,
    ):
        path = using.path(client.add_peer(keys[1].public, endpoint=serving.address))
        # A multiple of 16 that begins with no zero, as QUIC's.
        plaintexts = [b"\x40" + os.urandom(1295) for _ in range(per_burst)]
        path.send(plaintexts)
        expected = per_burst
        started = time.perf_counter()
        for _ in range(BURSTS):
            while count < expected:
                came = trio.Event()
                await came.wait()
            expected += per_burst
            path.send(plaintexts)
        while count < expected:
            came = trio.Event()
            await came.wait()
        return (time.perf_counter() - started) / (BURSTS * per_burst) * 1e6


def session_layer(scale: Scale) -> Outcome:
    """Measure whole sessions, Trio and sockets included, beside sockets alone."""
    rows = tuple(
        Row(f"{per_burst} at once", Figure(str(per_burst), "µs a datagram"), {}) for per_burst in AT_ONCE
    )
    contestants: dict[str, Callable[[int], float]] = {
        **{f"session, {name}": partial(_run_session, values) for name, values in CASES.items()},
        OFFLOADED: lambda per_burst: trio.run(partial(sockets, per_burst, offload=True)),
        PORTABLE: lambda per_burst: trio.run(partial(sockets, per_burst, offload=False)),
        PLAIN: plain,
    }
    for turn in range(scale.rounds):
        print(f"  sessions, round {turn + 1}", file=sys.stderr, flush=True)
        for row, per_burst in zip(rows, AT_ONCE, strict=True):
            for name, measure in contestants.items():
                row.values.setdefault(name, []).append(measure(per_burst))
    *_, subject = (name for name in contestants if name.startswith("session"))
    notes = ("Both ends in one thread: sealing, sending, receiving and opening; 1 296 bytes of content.",)
    return Outcome(suite="awg-session", subject=subject, peers=(PLAIN,), rows=rows, notes=notes)


def _run_session(values: Mapping[str, int | str], per_burst: int) -> float:
    parameters = parameters_from_mapping(values)
    return trio.run(partial(session, parameters, per_burst, offload=True))

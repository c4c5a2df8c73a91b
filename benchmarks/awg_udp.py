"""What a datagram costs between two AmneziaWG endpoints: the socket alone, and with the device, on loopback.

``python -m benchmarks.awg_udp`` prints one line for each case, against plain ``sendto`` and ``recvfrom``. All in one
thread, best of a few rounds, 1 350 bytes each.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import closing

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

LOOPBACK: Address = ("127.0.0.1", 0)
SIZE = 1350
ROUNDS = 7
BURSTS = 300

Move = Callable[[Sequence[bytes]], tuple[float, float]]


def best(move: Move, per_burst: int) -> tuple[float, float]:
    """Return the microseconds per datagram of sending and of receiving."""
    datagrams = [os.urandom(SIZE) for _ in range(per_burst)]
    sending = receiving = float("inf")
    for _ in range(ROUNDS):
        figures = [move(datagrams) for _ in range(BURSTS)]
        sending = min(sending, sum(figure[0] for figure in figures))
        receiving = min(receiving, sum(figure[1] for figure in figures))
    scale = 1e6 / (BURSTS * per_burst)
    return sending * scale, receiving * scale


def plain(per_burst: int) -> tuple[float, float]:
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


def sockets(per_burst: int, *, offload: bool) -> tuple[float, float]:
    """The endpoint's socket, without an endpoint."""
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
        fastest = float("inf")
        expected = per_burst
        for _ in range(ROUNDS):
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
            fastest = min(fastest, time.perf_counter() - started)
    return fastest / (BURSTS * per_burst) * 1e6


async def main() -> None:
    """Measure every case, and say what came out."""
    async for line in lines():
        print(line)


async def lines() -> AsyncGenerator[str]:
    """Yield a line for each case."""
    for per_burst in (32, 8, 1):
        sending, receiving = plain(per_burst)
        yield f"plain calls, {per_burst} at once: send {sending:.2f} µs, receive {receiving:.2f} µs"
        for offload in (True, False):
            sending, receiving = sockets(per_burst, offload=offload)
            how = "offloaded" if offload else "portable"
            yield f"{how}, {per_burst} at once: send {sending:.2f} µs, receive {receiving:.2f} µs"
    for name, values in CASES.items():
        for offload in (True, False):
            for per_burst in (32, 1):
                figure = await session(parameters_from_mapping(values), per_burst, offload=offload)
                how = "offloaded" if offload else "portable"
                yield f"session, {name}, {how}, {per_burst} at once: {figure:.2f} µs from caller to receiver"


if __name__ == "__main__":
    trio.run(main)

"""A bad network between two UDP programs: ``python -m benchmarks.udp_relay HOST:PORT`` prints its own port.

What it does to each datagram is said on standard input, one JSON object a line (see `Weather`), each answered
with one line; ``{"rebind": true}`` besides lets the clients come from other ports from now on. With
``--record FILE`` every datagram is written down, a JSON object a line.

It stands in for ``tc netem`` where the kernel lacks that. Runs of equal datagrams stay together (GSO and GRO), so
that it is not what is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import json
import os
import random
import select
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TextIO

import attrs

# What Python 3.11's socket module does not name.
UDP_SEGMENT = 103
UDP_GRO = 104
MOST_SEGMENTS = 64
LARGEST = 65535
# Linux grants what it is asked for with the FORCE options, which only root may use.
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
BUFFER = 16 << 20
# How much may be under way in one direction; what comes on top is lost, as in a router.
QUEUE = 64 << 20
# Reads at one socket before the other has its turn.
BATCH = 64
# Loss is drawn from this seed: two runs lose the same share.
SEED = 20_251_212

Address = tuple[str, int]


@attrs.frozen(kw_only=True)
class Weather:
    """What happens to a datagram: seconds, probabilities, and bytes.

    Attributes:
      delay: Of every datagram, each way.
      loss: How likely one is lost.
      reorder: How likely one arrives *late* seconds after its turn.
      duplicate: How likely one arrives twice.
      late: See *reorder*.
      largest: Longer ones are lost.
      dark: All are lost.

    """

    delay: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    late: float = 0.01
    largest: int = LARGEST
    dark: bool = False

    @property
    def is_steady(self) -> bool:
        """Whether all datagrams fare alike."""
        return not (self.loss or self.reorder or self.duplicate or self.dark) and self.largest == LARGEST


@attrs.frozen(order=True)
class Parcel:
    """Datagrams of *size* bytes each (the last may be shorter), on their way until *due*."""

    due: float
    number: int
    data: bytes = attrs.field(order=False)
    size: int = attrs.field(order=False)
    sink: socket.socket = attrs.field(order=False)
    target: Address = attrs.field(order=False)


@attrs.define(eq=False)
class Relay:
    """The front socket, to which clients send, and for each client a socket towards the server."""

    server: Address
    record: TextIO | None = None
    front: socket.socket = attrs.field(factory=lambda: _udp_socket())
    weather: Weather = Weather()
    _clients: dict[Address, socket.socket] = attrs.field(factory=dict[Address, socket.socket])
    _poll: select.epoll = attrs.field(factory=select.epoll)
    _by_fd: dict[int, tuple[socket.socket, Address]] = attrs.field(
        factory=dict[int, tuple[socket.socket, Address]]
    )
    _parcels: list[Parcel] = attrs.field(factory=list[Parcel])
    _queued: int = 0
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count)
    _random: random.Random = attrs.field(factory=lambda: random.Random(SEED))

    def run(self) -> None:
        """Relay until standard input ends."""
        self._poll.register(self.front, select.EPOLLIN)
        self._poll.register(sys.stdin, select.EPOLLIN)
        os.set_blocking(sys.stdin.fileno(), False)
        while True:
            for fd, _ in self._poll.poll(self._patience()):
                if fd == self.front.fileno():
                    self._read_front()
                elif fd in self._by_fd:
                    self._read_back(*self._by_fd[fd])
                elif fd == sys.stdin.fileno():
                    line = sys.stdin.readline()
                    if not line:
                        return
                    self._obey(json.loads(line))
            self._deliver()

    def _patience(self) -> float | None:
        return max(self._parcels[0].due - time.monotonic(), 0.0) if self._parcels else None

    def _obey(self, command: dict[str, float]) -> None:
        if command.pop("rebind", False):
            for old in self._clients.values():
                self._poll.unregister(old)
                del self._by_fd[old.fileno()]
                old.close()
            self._clients.clear()
            self._parcels = [parcel for parcel in self._parcels if parcel.sink.fileno() >= 0]
            heapq.heapify(self._parcels)
        self.weather = attrs.evolve(self.weather, **command)
        print(json.dumps(attrs.asdict(self.weather)), flush=True)

    def _read_front(self) -> None:
        for _ in range(BATCH):
            try:
                data, size, client = _receive(self.front)
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # the other side's port is closed just now
            back = self._clients.get(client)
            if back is None:
                back = self._clients[client] = _udp_socket()
                self._poll.register(back, select.EPOLLIN)
                self._by_fd[back.fileno()] = (back, client)
            self._take("to-server", data, size, back, self.server)

    def _read_back(self, back: socket.socket, client: Address) -> None:
        for _ in range(BATCH):
            try:
                data, size, _ = _receive(back)
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            self._take("to-client", data, size, self.front, client)

    def _take(self, way: str, data: bytes, size: int, sink: socket.socket, target: Address) -> None:
        if self.record is not None:
            for datagram in _split(data, size):
                entry = {"time": time.monotonic(), "way": way, "datagram": datagram.hex()}
                self.record.write(json.dumps(entry) + "\n")
            self.record.flush()
        due = time.monotonic() + self.weather.delay
        if self.weather.is_steady:
            self._push(due, data, size, sink, target)
            return
        if self.weather.dark:
            return
        kept: list[bytes] = []
        draw = self._random.random
        for datagram in _split(data, size):
            if draw() < self.weather.loss or len(datagram) > self.weather.largest:
                continue
            if draw() < self.weather.reorder:
                self._push(due + self.weather.late, datagram, size, sink, target)
                continue
            kept.append(datagram)
            if draw() < self.weather.duplicate:
                self._push(due, datagram, size, sink, target)
        if kept:
            self._push(due, b"".join(kept), size, sink, target)

    def _push(self, due: float, data: bytes, size: int, sink: socket.socket, target: Address) -> None:
        if self._queued + len(data) > QUEUE:
            return
        self._queued += len(data)
        heapq.heappush(self._parcels, Parcel(due, next(self._numbers), data, size, sink, target))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._parcels and self._parcels[0].due <= now:
            parcel = heapq.heappop(self._parcels)
            self._queued -= len(parcel.data)
            # Full buffers and closed ports lose datagrams here as they do anywhere.
            with contextlib.suppress(OSError):
                _send(parcel)


def _udp_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    for option, forced in ((socket.SO_RCVBUF, SO_RCVBUFFORCE), (socket.SO_SNDBUF, SO_SNDBUFFORCE)):
        try:
            made.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
        except PermissionError:
            made.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    return made


def _receive(source: socket.socket) -> tuple[bytes, int, Address]:
    """Return datagrams that came together, one after the other, with their size and where they come from."""
    data, ancillary, _, address = source.recvmsg(LARGEST, 64)
    for _, kind, value in ancillary:
        if kind == UDP_GRO:
            return data, struct.unpack("i", value[:4])[0], address
    return data, len(data), address


def _split(data: bytes, size: int) -> list[bytes]:
    if not data:
        return [b""]
    return [data[start : start + size] for start in range(0, len(data), size)]


def _send(parcel: Parcel) -> None:
    data, size = parcel.data, parcel.size
    if len(data) <= size:
        parcel.sink.sendto(data, parcel.target)
        return
    most = min(MOST_SEGMENTS, LARGEST // (size + 28)) * size
    ancillary = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", size))]
    for start in range(0, len(data), most):
        parcel.sink.sendmsg([data[start : start + most]], ancillary, 0, parcel.target)


def main() -> None:
    """Listen on a free port, print it, and relay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", metavar="HOST:PORT")
    parser.add_argument("--record", type=Path)
    for name in ("delay", "loss", "reorder", "duplicate"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    arguments = parser.parse_args()
    host, _, port = arguments.server.rpartition(":")
    with contextlib.ExitStack() as stack:
        record = stack.enter_context(arguments.record.open("w")) if arguments.record else None
        relay = Relay((host, int(port)), record)
        relay.weather = Weather(
            delay=arguments.delay,
            loss=arguments.loss,
            reorder=arguments.reorder,
            duplicate=arguments.duplicate,
        )
        print(relay.front.getsockname()[1], flush=True)
        relay.run()


if __name__ == "__main__":
    main()

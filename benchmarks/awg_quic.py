"""The QUIC driver of awg_obfs by itself: over plain UDP on loopback, without the session that carries it.

``python -m benchmarks.awg_quic [ENGINE ...]`` measures engines interleaved, one process for each side, and prints
megabytes per second and CPU seconds per gigabyte of both sides. What a stream asks for is said in its first 9 bytes
(`benchmarks.wire`).
"""

from __future__ import annotations

import argparse
import math
import socket
import statistics
import struct
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import groupby
from typing import Self

import attrs
import trio

from awg_obfs.quic.certificate import generate_certificate
from awg_obfs.quic.driver import QuicConnection, open_quic
from awg_obfs.quic.engine import Role
from awg_obfs.quic.settings import EngineKind, QuicSettings
from awg_obfs.quic.stream import QuicStream
from benchmarks.wire import DOWN, ECHO, RECEIPT, REQUEST, UP

MB = 1_000_000
GB = 1_000_000_000

# What a session leaves of an Ethernet path.
DATAGRAM = 1350

# What Python 3.11's socket module does not name.
UDP_SEGMENT = 103
UDP_GRO = 104
MOST_SEGMENTS = 32
LARGEST_RECEIVE = 65535
DRAIN = 64
SOCKET_BUFFER = 7 << 20

PIECE = bytes(64 * 1024)
PINGS = 200


class UdpPath:
    """A connected UDP socket as a `DatagramPath`, with GSO and GRO."""

    max_datagram_size = DATAGRAM
    round_trip = None

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.peer: tuple[str, int] | None = None
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)

    def send(self, datagrams: Sequence[bytes]) -> None:
        """See `DatagramPath.send`."""
        assert self.peer is not None
        for size, run in groupby(datagrams, len):
            equals = list(run)
            for start in range(0, len(equals), MOST_SEGMENTS):
                segments = equals[start : start + MOST_SEGMENTS]
                ancillary = (
                    [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", size))] if len(segments) > 1 else []
                )
                try:
                    self._socket.sendmsg(segments, ancillary, 0, self.peer)
                except BlockingIOError:
                    return

    async def receive(self) -> list[bytes]:
        """Wait for datagrams, and return what has come."""
        received: list[bytes] = []
        while not received:
            await trio.lowlevel.wait_readable(self._socket)
            while len(received) < DRAIN:
                try:
                    data, ancillary, _, self.peer = self._socket.recvmsg(LARGEST_RECEIVE, 64)
                except BlockingIOError:
                    break
                size = next(
                    (struct.unpack("i", value[:4])[0] for _, kind, value in ancillary if kind == UDP_GRO), 0
                )
                size = size or len(data)
                received.extend(data[start : start + size] for start in range(0, len(data), size))
        return received

    async def feed(self, connection: QuicConnection) -> None:
        """Hand everything that comes to *connection*."""
        while True:
            connection.received(await self.receive())


async def receive_exactly(stream: QuicStream, count: int) -> bytes:
    """Return the next *count* bytes."""
    received = b""
    while len(received) < count:
        piece = await stream.receive_some(count - len(received))
        if not piece:
            raise ConnectionResetError(f"ended after {len(received)} of {count} bytes")
        received += piece
    return received


async def serve_stream(stream: QuicStream) -> None:
    """Do what the client asks for."""
    with suppress(trio.BrokenResourceError):
        await answer(stream)


async def answer(stream: QuicStream) -> None:
    """Do what the client asks for, as long as it is there."""
    async with stream:
        want, count = REQUEST.unpack(await receive_exactly(stream, REQUEST.size))
        if want == DOWN:
            for _ in range(math.ceil(count / len(PIECE))):
                await stream.send_all(PIECE)
        elif want == UP:
            got = 0
            while piece := await stream.receive_some():
                got += len(piece)
            await stream.send_all(RECEIPT.pack(got))
        elif want == ECHO:
            while piece := await stream.receive_some():
                await stream.send_all(piece)


async def serve(engine: EngineKind) -> None:
    """Serve one client, and say on standard output on which port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    path = UdpPath(sock)
    settings = QuicSettings(engine=engine)
    async with (
        open_quic(Role.SERVER, path, settings=settings, certificate=generate_certificate()) as connection,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(path.feed, connection)
        sys.stdout.write(f"{sock.getsockname()[1]}\n")
        sys.stdout.flush()
        with suppress(trio.BrokenResourceError):
            while True:
                nursery.start_soon(serve_stream, await connection.accept_stream())
        nursery.cancel_scope.cancel()


@attrs.frozen
class Speed:
    """One transfer: megabytes per second, and CPU seconds per gigabyte of both processes."""

    rate: float
    cpu: float


@attrs.define
class Client:
    """A client of one server process."""

    connection: QuicConnection
    server_pid: int

    @classmethod
    @asynccontextmanager
    async def open(cls, engine: EngineKind) -> AsyncGenerator[Self]:
        """Start a server process and connect to it."""
        argv = [sys.executable, "-m", "benchmarks.awg_quic", "--serve", engine]
        process = await trio.lowlevel.open_process(argv, stdout=-1)
        try:
            assert process.stdout is not None
            port = int((await process.stdout.receive_some()).decode())
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            path = UdpPath(sock)
            path.peer = ("127.0.0.1", port)
            async with (
                open_quic(Role.CLIENT, path, settings=QuicSettings(engine=engine)) as connection,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(path.feed, connection)
                await connection.wait_ready()
                yield cls(connection, process.pid)
                nursery.cancel_scope.cancel()
        finally:
            process.terminate()
            with trio.CancelScope(shield=True), trio.move_on_after(3):
                await process.wait()

    async def down(self, count: int) -> None:
        """Receive *count* bytes on one stream."""
        async with self.connection.open_stream() as stream:
            await stream.send_all(REQUEST.pack(DOWN, count))
            await stream.send_eof()
            while await stream.receive_some():
                pass

    async def up(self, count: int) -> None:
        """Send *count* bytes on one stream."""
        async with self.connection.open_stream() as stream:
            await stream.send_all(REQUEST.pack(UP, count))
            for _ in range(math.ceil(count / len(PIECE))):
                await stream.send_all(PIECE)
            await stream.send_eof()
            await receive_exactly(stream, RECEIPT.size)

    async def speed(self, upwards: bool, streams: int, count: int) -> Speed:
        """Move *count* bytes over *streams* streams at once."""
        move = self.up if upwards else self.down
        cpu = self._cpu()
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(streams):
                nursery.start_soon(move, count // streams)
        elapsed = time.perf_counter() - start
        return Speed(count / MB / elapsed, (self._cpu() - cpu) * GB / count)

    async def latency(self) -> float:
        """Return the median round trip of a small message, in milliseconds."""
        times: list[float] = []
        async with self.connection.open_stream() as stream:
            await stream.send_all(REQUEST.pack(ECHO, 0))
            for _ in range(PINGS):
                start = time.perf_counter()
                await stream.send_all(b"ping")
                await receive_exactly(stream, 4)
                times.append(time.perf_counter() - start)
        return statistics.median(times) * 1000

    async def opens(self, count: int) -> float:
        """Return how many streams are opened, answered and closed per second, eight at a time."""
        start = time.perf_counter()
        limiter = trio.CapacityLimiter(8)

        async def one() -> None:
            async with limiter:
                await self.up(0)

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)
        return count / (time.perf_counter() - start)

    def _cpu(self) -> float:
        with open(f"/proc/{self.server_pid}/stat", encoding="ascii") as stat:  # noqa: PTH123
            fields = stat.read().rpartition(")")[2].split()
        return time.process_time() + (int(fields[11]) + int(fields[12])) / 100


CASES = (
    ("down", False, 1),
    ("up", True, 1),
    ("down x50", False, 50),
    ("up x50", True, 50),
    ("down x500", False, 500),
)


async def measure(engines: Sequence[EngineKind], rounds: int, megabytes: int) -> None:
    """Print what each engine does, round by round interleaved."""
    figures: dict[tuple[EngineKind, str], list[Speed]] = {}
    others: dict[tuple[EngineKind, str], list[float]] = {}
    for _ in range(rounds):
        for engine in engines:
            async with Client.open(engine) as client:
                await client.speed(False, 1, 5 * MB)
                others.setdefault((engine, "latency ms"), []).append(await client.latency())
                for name, upwards, streams in CASES:
                    figures.setdefault((engine, name), []).append(
                        await client.speed(upwards, streams, megabytes * MB)
                    )
                others.setdefault((engine, "opens/s"), []).append(await client.opens(400))
    for engine in engines:
        cells: list[str] = []
        for name, _, _ in CASES:
            speeds = figures[engine, name]
            rate = statistics.median(speed.rate for speed in speeds)
            cpu = statistics.median(speed.cpu for speed in speeds)
            cells.append(f"{name} {rate:.1f} MB/s {cpu:.1f} s/GB")
        cells += [
            f"{name} {statistics.median(others[engine, name]):.2f}" for name in ("latency ms", "opens/s")
        ]
        print(f"{engine}: " + " | ".join(cells))


def main() -> None:
    """Serve, or measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", type=EngineKind, default=[EngineKind.AIOQUIC])
    parser.add_argument("--serve", type=EngineKind)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=30)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        trio.run(serve, arguments.serve)
    else:
        trio.run(measure, arguments.engines, arguments.rounds, arguments.megabytes)


if __name__ == "__main__":
    main()

"""QUIC as anyone would use it, without a proxy: stock aioquic or qh3 under asyncio.

``python -m benchmarks.plain_quic ENGINE serve CERTIFICATE KEY`` prints its port and does what its streams ask for
(`benchmarks.wire`). ``python -m benchmarks.plain_quic ENGINE load HOST PORT`` connects to it and obeys the commands of
`benchmarks.load`, each connection of which is a stream here. ENGINE is ``aioquic`` or ``qh3``.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - the peer is an asyncio program
import importlib
import json
import ssl
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import attrs

from benchmarks import wire
from benchmarks.load import PING, WORKERS, Command
from benchmarks.payload import PATTERN, PERIOD, CorruptedError

PIECE = 1 << 16
READ = 1 << 20
# What an Ethernet path carries and both libraries take; their default is 1200.
DATAGRAM = 1350
ALPN = ["plain"]
# The streams of a transfer stay open without a byte while others have their turn.
IDLE = 120.0

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def library(engine: str) -> tuple[ModuleType, ModuleType]:
    """Return an engine's asyncio module and its configuration module; their interfaces are the same."""
    return importlib.import_module(f"{engine}.asyncio"), importlib.import_module(
        f"{engine}.quic.configuration"
    )


async def send_pattern(writer: asyncio.StreamWriter, count: int) -> None:
    """Send the first *count* bytes of the pattern."""
    position = 0
    while position < count:
        start = position % PERIOD
        length = min(PIECE, count - position)
        writer.write(PATTERN[start : start + length])
        position += length
        # The library takes everything at once and never says stop; this lets it send meanwhile.
        await asyncio.sleep(0)


async def receive_pattern(reader: asyncio.StreamReader, count: int, *, checked: bool) -> None:
    """Receive *count* bytes, and compare them where they are *checked*."""
    position = 0
    while position < count:
        piece = await reader.read(READ)
        if not piece:
            raise ConnectionResetError(f"closed after {position} of {count} bytes")
        start = position % PERIOD
        if checked and piece != PATTERN[start : start + len(piece)]:
            raise CorruptedError(f"wrong bytes after position {position}")
        position += len(piece)


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one stream."""
    wish, count = wire.REQUEST.unpack(await reader.readexactly(wire.REQUEST.size))
    if wish in (wire.DOWN, wire.DOWN_CHECKED):
        await send_pattern(writer, count)
    elif wish in (wire.UP, wire.UP_CHECKED):
        await receive_pattern(reader, count, checked=wish == wire.UP_CHECKED)
        writer.write(wire.RECEIPT.pack(count))
    elif wish == wire.ECHO:
        while piece := await reader.read(READ):
            writer.write(piece)
    writer.write_eof()


async def serve(engine: str, certificate: str, key: str) -> None:
    """Serve until killed."""
    quic, configuration = library(engine)
    settings = configuration.QuicConfiguration(
        is_client=False, alpn_protocols=ALPN, max_datagram_size=DATAGRAM, idle_timeout=IDLE
    )
    settings.load_cert_chain(certificate, key)
    running: set[asyncio.Task[None]] = set()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(converse(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await quic.serve("0.0.0.0", 0, configuration=settings, stream_handler=handle)
    # Neither library tells which port it was given.
    print(server._transport.get_extra_info("sockname")[1], flush=True)  # noqa: SLF001
    await asyncio.Event().wait()


@attrs.define(eq=False)
class Load:
    """One connection to the server, and what is measured over it."""

    connection: Any
    held: list[Stream] = attrs.field(factory=list[Stream])

    async def download(self, command: Command) -> dict[str, float]:
        """See `benchmarks.load.download`."""
        wish = wire.DOWN_CHECKED if command.checked else wire.DOWN
        return await self._transfer(command, lambda each: self._down(wish, each, checked=command.checked))

    async def upload(self, command: Command) -> dict[str, float]:
        """See `benchmarks.load.upload`."""
        wish = wire.UP_CHECKED if command.checked else wire.UP
        return await self._transfer(command, lambda each: self._up(wish, each))

    async def _transfer(self, command: Command, move: Callable[[int], Awaitable[None]]) -> dict[str, float]:
        each = command.size // command.streams
        began = time.perf_counter()
        await asyncio.gather(*(move(each) for _ in range(command.streams)))
        return {"seconds": time.perf_counter() - began, "bytes": each * command.streams}

    async def _down(self, wish: bytes, count: int, *, checked: bool) -> None:
        reader, writer = await self.connection.create_stream()
        writer.write(wire.REQUEST.pack(wish, count))
        writer.write_eof()
        await receive_pattern(reader, count, checked=checked)

    async def _up(self, wish: bytes, count: int) -> None:
        reader, writer = await self.connection.create_stream()
        writer.write(wire.REQUEST.pack(wish, count))
        await send_pattern(writer, count)
        writer.write_eof()
        await reader.readexactly(wire.RECEIPT.size)

    async def ping(self, command: Command) -> dict[str, float]:
        """See `benchmarks.load.ping`."""
        reader, writer = await self.connection.create_stream()
        writer.write(wire.REQUEST.pack(wire.ECHO, 0))
        took: list[float] = []
        for _ in range(command.count):
            began = time.perf_counter_ns()
            writer.write(PING)
            await reader.readexactly(len(PING))
            took.append((time.perf_counter_ns() - began) / 1000)
        writer.write_eof()
        cuts = statistics.quantiles(took, n=100)
        return {"p50": cuts[49], "p99": cuts[98]}

    async def connect_rate(self, command: Command) -> dict[str, float]:
        """See `benchmarks.load.connect_rate`: streams to the first byte from the server."""
        each = max(command.count // WORKERS, 1)

        async def work() -> None:
            for _ in range(each):
                await self._down(wire.DOWN, 1, checked=False)

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(WORKERS)))
        return {"seconds": time.perf_counter() - began, "count": each * WORKERS}


async def load(engine: str, host: str, port: int) -> None:
    """Connect to a server and obey until standard input ends."""
    quic, configuration = library(engine)
    settings = configuration.QuicConfiguration(
        is_client=True,
        alpn_protocols=ALPN,
        max_datagram_size=DATAGRAM,
        idle_timeout=IDLE,
        verify_mode=ssl.CERT_NONE,
    )
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with quic.connect(host, port, configuration=settings) as connection:
        worker = Load(connection)
        deeds = {
            "download": worker.download,
            "upload": worker.upload,
            "ping": worker.ping,
            "connect_rate": worker.connect_rate,
        }
        while line := await lines.readline():
            command = Command(**json.loads(line))
            try:
                answer: dict[str, object] = dict(await deeds[command.do](command))
            except (OSError, asyncio.IncompleteReadError) as exc:
                answer = {"error": str(exc) or repr(exc)}
            print(json.dumps(answer), flush=True)


def main() -> None:
    """Do what the command line says."""
    engine, role, *rest = sys.argv[1:]
    if role == "serve":
        asyncio.run(serve(engine, *rest))
    else:
        asyncio.run(load(engine, rest[0], int(rest[1])))


if __name__ == "__main__":
    main()

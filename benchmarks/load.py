"""The load generator: ``python -m benchmarks.load`` obeys one JSON command per line and answers with one.

It stays cheap beside what it measures: blocking sockets where one stream is enough, epoll for many, forked
workers for connection rates, no byte copied that need not be (see `benchmarks.payload`).
"""

from __future__ import annotations

import json
import os
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import attrs

from benchmarks import wire
from benchmarks.payload import Counter, Source, read_buffer

PING = bytes(range(64))
# Connections in the making at any time while their rate is measured.
WORKERS = 16
# Nothing that is measured lets one read or write wait this long: it hangs.
PATIENCE = 60.0


@attrs.frozen(kw_only=True)
class Command:
    """What to *do*, through which *proxy* (`None`: none), to which *target*, and how much of it."""

    do: str
    proxy: wire.Address | None = attrs.field(converter=lambda pair: pair and (pair[0], pair[1]))
    target: wire.Address = attrs.field(converter=lambda pair: (pair[0], pair[1]))
    credentials: wire.Credentials | None = attrs.field(
        default=None, converter=lambda pair: pair and (pair[0], pair[1]), repr=False
    )
    streams: int = 1
    size: int = 0
    count: int = 1
    checked: bool = False


def download(command: Command) -> dict[str, float]:
    """Receive *size* bytes in all, over *streams* connections; the clock starts with the requests."""
    each = command.size // command.streams
    wish = wire.DOWN_CHECKED if command.checked else wire.DOWN
    connections = _connections(command)
    began = time.perf_counter()
    for connection in connections:
        connection.sendall(wire.REQUEST.pack(wish, each))
    if len(connections) == 1:
        counter = Counter(command.checked, read_buffer())
        while counter.position < each:
            if not counter.receive(connections[0], each - counter.position):
                raise ConnectionResetError(f"closed after {counter.position} of {each} bytes")
    else:
        _download_many(connections, each, checked=command.checked)
    seconds = time.perf_counter() - began
    _close(connections)
    return {"seconds": seconds, "bytes": each * len(connections)}


def _download_many(connections: Sequence[socket.socket], each: int, *, checked: bool) -> None:
    poll = select.epoll()
    buffer = read_buffer()
    counters = {c.fileno(): (c, Counter(checked, buffer)) for c in connections}
    for connection in connections:
        connection.setblocking(False)
        poll.register(connection, select.EPOLLIN)
    while counters:
        for fd, _ in poll.poll(PATIENCE) or _hang("a download"):
            connection, counter = counters[fd]
            if not counter.receive(connection, each - counter.position):
                raise ConnectionResetError(f"closed after {counter.position} of {each} bytes")
            if counter.position == each:
                poll.unregister(connection)
                del counters[fd]


def upload(command: Command) -> dict[str, float]:
    """Send *size* bytes in all, over *streams* connections, until every receipt has come back."""
    each = command.size // command.streams
    wish = wire.UP_CHECKED if command.checked else wire.UP
    source = Source()
    connections = _connections(command)
    began = time.perf_counter()
    for connection in connections:
        connection.sendall(wire.REQUEST.pack(wish, each))
    if len(connections) == 1:
        position = 0
        while position < each:
            position += source.send(connections[0], position, each - position)
    else:
        _upload_many(connections, each, source)
    for connection in connections:
        connection.settimeout(PATIENCE)
        (arrived,) = wire.RECEIPT.unpack(wire.receive_exactly(connection, wire.RECEIPT.size))
        if arrived != each:
            raise ConnectionResetError(f"{arrived} of {each} bytes arrived")
    seconds = time.perf_counter() - began
    _close(connections)
    return {"seconds": seconds, "bytes": each * len(connections)}


def _upload_many(connections: Sequence[socket.socket], each: int, source: Source) -> None:
    poll = select.epoll()
    positions = dict.fromkeys((c.fileno() for c in connections), 0)
    by_fd = {c.fileno(): c for c in connections}
    for connection in connections:
        connection.setblocking(False)
        poll.register(connection, select.EPOLLOUT)
    while positions:
        for fd, _ in poll.poll(PATIENCE) or _hang("an upload"):
            positions[fd] += source.send(by_fd[fd], positions[fd], each - positions[fd])
            if positions[fd] == each:
                poll.unregister(fd)
                del positions[fd]


def connect_rate(command: Command) -> dict[str, float]:
    """Open *count* connections, `WORKERS` at a time, each until the target's greeting is there."""
    each = max(command.count // WORKERS, 1)
    began = time.perf_counter()
    children = [_fork(lambda: _greet(command, each)) for _ in range(WORKERS)]
    failed = sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)
    seconds = time.perf_counter() - began
    if failed:
        raise ConnectionResetError(f"{failed} of {WORKERS} workers met an error")
    return {"seconds": seconds, "count": each * WORKERS}


def _greet(command: Command, count: int) -> None:
    for _ in range(count):
        with wire.connect(command.proxy, command.target, command.credentials) as connection:
            wire.receive_exactly(connection, len(wire.GREETING))


def _fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    except OSError as exc:
        print(f"benchmarks.load: {exc!r}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def ping(command: Command) -> dict[str, float]:
    """Send 64 bytes to and fro *count* times over one connection; microseconds."""
    (connection,) = _connections(command)
    connection.sendall(wire.REQUEST.pack(wire.ECHO, 0))
    took: list[float] = []
    for _ in range(command.count):
        began = time.perf_counter_ns()
        connection.sendall(PING)
        if wire.receive_exactly(connection, len(PING)) != PING:
            raise ConnectionResetError("the echo differs")
        took.append((time.perf_counter_ns() - began) / 1000)
    connection.close()
    cuts = statistics.quantiles(took, n=100)
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def hold(command: Command) -> dict[str, float]:
    """Open *count* connections that say nothing more, and keep them until the next ``release``."""
    held = _connections(attrs.evolve(command, streams=command.count))
    for connection in held:
        connection.sendall(wire.REQUEST.pack(wire.HOLD, 0))
    print(json.dumps({"held": len(held)}), flush=True)
    sys.stdin.readline()
    _close(held)
    return {"released": len(held)}


def _connections(command: Command) -> list[socket.socket]:
    made: list[socket.socket] = []
    for _ in range(command.streams):
        connection = wire.connect(command.proxy, command.target, command.credentials)
        connection.settimeout(None)
        made.append(connection)
    return made


def _close(connections: Sequence[socket.socket]) -> None:
    for connection in connections:
        connection.close()


def _hang(what: str) -> list[tuple[int, int]]:
    raise ConnectionResetError(f"{what} stood still for {PATIENCE:.0f} s")


DEEDS: dict[str, Callable[[Command], dict[str, float]]] = {
    "download": download,
    "upload": upload,
    "connect_rate": connect_rate,
    "ping": ping,
    "hold": hold,
}


def main() -> None:
    """Obey until standard input ends."""
    for line in iter(sys.stdin.readline, ""):
        command = Command(**json.loads(line))
        try:
            answer: dict[str, object] = dict(DEEDS[command.do](command))
        except OSError as exc:
            answer = {"error": str(exc) or repr(exc)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

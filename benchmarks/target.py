"""The far end of every benchmark: ``python -m benchmarks.target bulk|greeter HOST`` prints its port and serves.

``bulk`` sends, receives, echoes and holds as its clients ask (see `benchmarks.wire`), all in one epoll loop.
``greeter`` sends one byte and closes: what connection rates are measured against.
"""

from __future__ import annotations

import select
import socket
import sys
from collections import deque
from collections.abc import Generator

from benchmarks import wire
from benchmarks.payload import Counter, Source, read_buffer

BACKLOG = 4096

# What a conversation waits for next.
Wait = int
READABLE: Wait = select.EPOLLIN
WRITABLE: Wait = select.EPOLLOUT


def converse(client: socket.socket, source: Source, buffer: bytearray) -> Generator[Wait]:
    """Serve one client; *buffer* is shared. Yields what to wait for whenever its socket would block."""
    head = b""
    while len(head) < wire.REQUEST.size:
        yield READABLE
        piece = client.recv(wire.REQUEST.size - len(head))
        if not piece:
            return
        head += piece
    wish, count = wire.REQUEST.unpack(head)
    if wish in (wire.DOWN, wire.DOWN_CHECKED):
        yield from _send(client, source, count)
    elif wish in (wire.UP, wire.UP_CHECKED):
        yield from _receive(client, count, Counter(wish == wire.UP_CHECKED, buffer))
    elif wish == wire.ECHO:
        yield from _echo(client)
    else:
        yield READABLE  # until the client hangs up


def _send(client: socket.socket, source: Source, count: int) -> Generator[Wait]:
    position = 0
    while position < count:
        try:
            position += source.send(client, position, count - position)
        except BlockingIOError:
            yield WRITABLE
    client.shutdown(socket.SHUT_WR)
    yield READABLE


def _receive(client: socket.socket, count: int, counter: Counter) -> Generator[Wait]:
    while counter.position < count:
        try:
            if not counter.receive(client, count - counter.position):
                return
        except BlockingIOError:
            yield READABLE
    client.sendall(wire.RECEIPT.pack(counter.position))
    yield READABLE


def _echo(client: socket.socket) -> Generator[Wait]:
    while True:
        yield READABLE
        data = client.recv(65536)
        if not data:
            return
        client.sendall(data)  # a ping: it always fits


def serve_bulk(listener: socket.socket) -> None:
    """Serve until killed."""
    source, buffer = Source(), read_buffer()
    poll = select.epoll()
    poll.register(listener, READABLE)
    clients: dict[int, tuple[socket.socket, Generator[Wait]]] = {}
    while True:
        ready = deque(poll.poll())
        while ready:
            fd, _ = ready.popleft()
            if fd == listener.fileno():
                client, _ = listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = (client, converse(client, source, buffer))
                poll.register(client, READABLE)
                continue
            client, conversation = clients[fd]
            try:
                poll.modify(fd, next(conversation))
            except (StopIteration, OSError):
                del clients[fd]
                client.close()


def serve_greetings(listener: socket.socket) -> None:
    """Serve until killed."""
    while True:
        client, _ = listener.accept()
        client.send(wire.GREETING)
        client.close()


def main() -> None:
    """Listen on a free port, print it, and serve as the command line says."""
    listener = socket.create_server((sys.argv[2], 0), backlog=BACKLOG)
    print(listener.getsockname()[1], flush=True)
    {"bulk": serve_bulk, "greeter": serve_greetings}[sys.argv[1]](listener)


if __name__ == "__main__":
    main()

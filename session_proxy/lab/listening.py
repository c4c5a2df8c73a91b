"""Sockets on loopback: the same free port for IPv4, IPv6 and UDP, and ports that others will take."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import ExitStack

import attrs
import trio

# Another program may hold one of the pair: guessed to be plenty.
ATTEMPTS = 64
# Below every system's ephemeral range, so that no outgoing connection takes a port that waits to be used.
RESERVED_PORTS = range(20_000, 32_000)
BACKLOG = 1024


@attrs.frozen
class Sockets:
    """Sockets that share *port* on 127.0.0.1 and, where there is IPv6, on ::1."""

    port: int
    tcp: list[trio.SocketListener]
    udp: list[trio.socket.SocketType]

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"


def has_ipv6() -> bool:
    """Whether ::1 can be bound here."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def open_sockets(*, udp: bool = False) -> Sockets:
    """Bind TCP, and UDP if asked, to one free port on every loopback address, and listen.

    Raises:
      OSError: no port was free on all of them.

    """
    hosts = ["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"]
    for _ in range(ATTEMPTS):
        try:
            return await _open_on_one_port(hosts, udp=udp)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "no port is free on every loopback address")


async def _open_on_one_port(hosts: list[str], *, udp: bool) -> Sockets:
    tcp: list[trio.socket.SocketType] = []
    datagrams: list[trio.socket.SocketType] = []
    with ExitStack() as undo:
        port = 0
        for host in hosts:
            for kind, opened in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, datagrams)):
                if kind == socket.SOCK_DGRAM and not udp:
                    continue
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                sock = trio.socket.socket(family, kind)
                undo.callback(sock.close)
                opened.append(sock)
                await sock.bind((host, port))
                port = sock.getsockname()[1]
        for sock in tcp:
            sock.listen(BACKLOG)
        undo.pop_all()
    return Sockets(port, [trio.SocketListener(sock) for sock in tcp], datagrams)


def free_port(rng: random.Random) -> int:
    """Return a TCP port of 127.0.0.1 that nobody holds now, for another program to listen on later.

    Raises:
      OSError: none was found.

    """
    for _ in range(ATTEMPTS):
        port = rng.choice(RESERVED_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(errno.EADDRINUSE, "no port is free on 127.0.0.1")

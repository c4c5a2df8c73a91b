from __future__ import annotations

import errno
import socket
from collections.abc import Generator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from session_proxy.errors import ResolutionError, TransportDownError
from session_proxy.outbound import direct_udp
from session_proxy.outbound.connecting import SocketAddress
from session_proxy.outbound.direct_udp import MOST_NAMES, NAME_LIFE, DirectDatagrams
from session_proxy.target import Target


class Names:
    """A resolver that knows what it has been told, and counts who asks."""

    def __init__(self, **names: str) -> None:
        self.names = names
        self.asked: list[str] = []

    async def look_up(self, target: Target, kind: int) -> list[SocketAddress]:
        await trio.lowlevel.checkpoint()
        assert kind == socket.SOCK_DGRAM
        self.asked.append(target.host)
        host = self.names.get(target.host)
        if host is None:
            return []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return [SocketAddress(family, (host, target.port))]


@contextmanager
def peer(host: str = "127.0.0.1") -> Generator[tuple[socket.socket, Target]]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.settimeout(5)
        yield sock, Target.of(host, sock.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_one_socket_carries_both_versions_of_ip(host: str) -> None:
    datagrams = DirectDatagrams.open(Names().look_up)
    with peer(host) as (sock, target):
        await datagrams.send(target, b"ping")
        payload, sender = sock.recvfrom(100)
        sock.sendto(payload.upper(), sender)
        assert await datagrams.receive() == (target, b"PING")
    await datagrams.aclose()
    await datagrams.aclose()


async def test_a_name_is_looked_up_once_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    names = Names(server="127.0.0.1")
    datagrams = DirectDatagrams.open(names.look_up)
    with peer() as (sock, target):
        name = Target("server", target.port)
        for _ in range(3):
            await datagrams.send(name, b"x")
            assert sock.recv(10) == b"x"
        assert names.asked == ["server"]
        await trio.sleep(NAME_LIFE + 1)
        await datagrams.send(name, b"x")
        assert names.asked == ["server", "server"]
    await datagrams.aclose()


async def test_only_so_many_names_are_remembered() -> None:
    names = Names(**{f"n{n}": "127.0.0.1" for n in range(MOST_NAMES + 1)})
    datagrams = DirectDatagrams.open(names.look_up)
    with peer() as (_, target):
        for n in (*range(MOST_NAMES + 1), 0):
            await datagrams.send(Target(f"n{n}", target.port), b"x")
    assert names.asked.count("n0") == 2
    await datagrams.aclose()


async def test_a_name_without_an_address_is_an_error() -> None:
    datagrams = DirectDatagrams.open(Names().look_up)
    with pytest.raises(ResolutionError):
        await datagrams.send(Target("nowhere", 53), b"x")
    await datagrams.aclose()


async def test_a_datagram_that_cannot_be_sent_is_lost() -> None:
    datagrams = DirectDatagrams.open(Names().look_up)
    with peer() as (sock, target):
        await datagrams.send(target, bytes(65536))
        await datagrams.send(target, b"the next")
        assert sock.recv(100) == b"the next"
    await datagrams.aclose()


async def test_closing_wakes_who_waits() -> None:
    datagrams = DirectDatagrams.open(Names().look_up)
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await datagrams.receive()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await datagrams.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await datagrams.receive()
    with pytest.raises(trio.ClosedResourceError):
        await datagrams.send(Target("127.0.0.1", 9), b"x")


async def test_an_unreachable_port_does_not_end_the_association() -> None:
    datagrams = DirectDatagrams.open(Names().look_up)
    with peer() as (sock, target):
        with peer() as (_, gone):
            pass
        await datagrams.send(gone, b"x")
        await datagrams.send(target, b"y")
        _, sender = sock.recvfrom(10)
        sock.sendto(b"z", sender)
        assert await datagrams.receive() == (target, b"z")
    await datagrams.aclose()


async def test_without_ipv6_it_is_ipv4_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_udp.socket, "has_ipv6", False)
    names = Names(six="::1", four="127.0.0.1")
    datagrams = DirectDatagrams.open(names.look_up)
    with peer() as (sock, target):
        await datagrams.send(Target("four", target.port), b"x")
        assert sock.recv(10) == b"x"
        with pytest.raises(ResolutionError):
            await datagrams.send(Target("six", target.port), b"x")
    await datagrams.aclose()


async def test_without_descriptors_the_transport_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> socket.socket:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(direct_udp.socket, "socket", refuse)
    with pytest.raises(TransportDownError, match="ulimit"):
        DirectDatagrams.open(Names().look_up)

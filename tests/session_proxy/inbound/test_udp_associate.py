from __future__ import annotations

import errno
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from session_proxy.errors import ResolutionError, TransportDownError, UdpUnsupportedError
from session_proxy.events import ConnectionClosed, Notice, UdpAssociationClosed
from session_proxy.inbound import socks, udp_associate
from session_proxy.inbound.client import serve_client
from session_proxy.inbound.udp_associate import MOST_PENDING, WAY_LIFE
from session_proxy.outbound.transport import DatagramAssociation, Health, HealthState, Transport
from session_proxy.policy.rules import Decision
from session_proxy.profile.model import Limits
from session_proxy.protocol.socks5_udp import decode_datagram, encode_datagram
from session_proxy.target import Target
from tests.support.doors import FakeDialer, Open, open_door, open_inner_door
from tests.support.sockets import LOOPBACK, read_all, read_exactly, stream_pair
from tunnel_relay.background import open_background

ASSOCIATE = b"\x05\x01\x00" + b"\x05\x03\x00\x01" + bytes(6)


@attrs.frozen
class Client:
    """A client's control connection, its own socket, and where to send datagrams."""

    control: trio.SocketStream
    socket: trio.socket.SocketType
    relay: tuple[str, int]

    async def send(self, target: Target, payload: bytes) -> None:
        await self.socket.sendto(encode_datagram(target, payload), self.relay)

    async def receive(self) -> tuple[Target, bytes]:
        with trio.fail_after(5):
            decoded = decode_datagram(await self.socket.recv(65535))
        assert decoded is not None
        return decoded


async def associate(door: Open, sock: trio.socket.SocketType, request: bytes = ASSOCIATE) -> Client:
    """Open an association; *sock* is bound already."""
    control = await door.connect()
    await control.send_all(request)
    answer = await read_exactly(control, 12 if ":" not in door.addresses[0].host else 24)
    assert answer[:5] == b"\x05\x00\x05\x00\x00"
    return Client(control, sock, (door.addresses[0].host, int.from_bytes(answer[-2:], "big")))


@asynccontextmanager
async def open_client(door: Open, host: str = LOOPBACK) -> AsyncGenerator[Client]:
    with trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind((host, 0))
        client = await associate(door, sock)
        async with client.control:
            yield client


@asynccontextmanager
async def open_echo(host: str = LOOPBACK) -> AsyncGenerator[Target]:
    """A server that answers datagrams with their payload in capitals."""
    with trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind((host, 0))

        async def serve() -> None:
            while True:
                payload, sender = await sock.recvfrom(65535)
                await sock.sendto(payload.upper(), sender)

        async with open_background() as nursery:
            nursery.start_soon(serve)
            yield Target(host, sock.getsockname()[1])


@attrs.define(eq=False)
class FakeDatagrams:
    """An association whose datagrams the test sees."""

    news: trio.Semaphore
    sent: list[tuple[Target, bytes]] = attrs.field(factory=list[tuple[Target, bytes]])
    failure: Exception | None = None
    closed: bool = False

    async def send(self, target: Target, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        self.sent.append((target, payload))
        self.news.release()

    async def receive(self) -> tuple[Target, bytes]:
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed = True


@attrs.define(eq=False)
class FakeTransport:
    """A transport that carries datagrams, or says why not."""

    failure: Exception | None = None
    opened: list[FakeDatagrams] = attrs.field(factory=list[FakeDatagrams])
    news: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(0))

    async def connect_tcp(self, target: Target) -> trio.abc.Stream:
        raise AssertionError

    async def open_udp(self) -> DatagramAssociation:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        self.opened.append(FakeDatagrams(self.news))
        return self.opened[-1]

    async def wait_usable(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_changed(self) -> None:
        await trio.sleep_forever()

    def health(self) -> Health:
        return Health(HealthState.READY)

    def streams(self) -> int:
        return len(self.opened)


@pytest.mark.parametrize("host", [LOOPBACK, "::1"])
async def test_datagrams_go_both_ways(host: str) -> None:
    async with open_echo(host) as target, open_door(hosts=(host,)) as door:
        async with open_client(door, host) as client:
            for number in range(20):
                await client.send(target, b"ping %d" % number)
                assert await client.receive() == (target, b"PING %d" % number)
        closed = await door.events.closed()
    assert (closed.protocol, closed.outcome, closed.upstream, closed.rule) == (
        "socks5-udp",
        "ok",
        "direct",
        "routes[0]",
    )
    (udp,) = door.events.of(UdpAssociationClosed)
    assert (udp.id, udp.sent, udp.received, udp.dropped) == (closed.id, 20, 20, 0)
    assert closed.sent == closed.received == sum(len(b"ping %d" % number) for number in range(20))


async def test_a_name_is_looked_up() -> None:
    async with open_echo() as target, open_door() as door, open_client(door) as client:
        await client.send(Target("localhost", target.port), b"ping")
        assert (await client.receive())[1] == b"PING"


async def test_the_largest_datagram_passes() -> None:
    payload = bytes(65507 - 10)
    async with open_echo() as target, open_door() as door, open_client(door) as client:
        await client.send(target, payload)
        assert await client.receive() == (target, payload)


async def test_fragments_and_nonsense_are_dropped() -> None:
    async with open_echo() as target, open_door() as door:
        async with open_client(door) as client:
            good = encode_datagram(target, b"ping")
            for bad in (b"", b"\0\0", good[:2] + b"\x01" + good[3:], b"\0\0\0\x09" + good[4:]):
                await client.socket.sendto(bad, client.relay)
            await client.send(target, b"ping")
            assert await client.receive() == (target, b"PING")
        await door.events.closed()
    assert door.events.of(UdpAssociationClosed)[0].dropped == 4


async def test_only_the_client_is_served() -> None:
    """The first datagram shows the client's port; from then on, and from elsewhere, others are strangers."""
    async with open_echo() as target, open_door() as door:
        async with open_client(door) as client:
            await client.send(target, b"ping")
            await client.receive()
            with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                await stranger.bind(("127.0.0.2", 0))
                await stranger.sendto(encode_datagram(target, b"let me in"), client.relay)
            with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                await stranger.sendto(encode_datagram(target, b"me too"), client.relay)
            await client.send(target, b"pong")
            assert await client.receive() == (target, b"PONG")
        await door.events.closed()
    (udp,) = door.events.of(UdpAssociationClosed)
    assert (udp.sent, udp.dropped) == (2, 2)


async def test_a_port_that_the_client_has_named_is_the_only_one() -> None:
    async with open_echo() as target, open_door() as door:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.bind((LOOPBACK, 0))
            port = sock.getsockname()[1]
            client = await associate(door, sock, ASSOCIATE[:-2] + port.to_bytes(2, "big"))
            with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                await stranger.sendto(encode_datagram(target, b"let me in"), client.relay)
            await client.send(target, b"ping")
            assert await client.receive() == (target, b"PING")
            await client.control.aclose()
        await door.events.closed()
    assert door.events.of(UdpAssociationClosed)[0].dropped == 1


@attrs.define(eq=False)
class Router(FakeDialer):
    """Routes by name: what is called "dev" goes through dev, then edge; the rest is rejected."""

    async def decide(self, target: Target) -> Decision:
        if target.host.startswith("10."):
            return Decision("routes[0]", ("dev", "edge"))
        return Decision("default", ("reject",))


async def wait_for(count: int, transport: FakeTransport) -> None:
    """Wait until *count* more datagrams have been sent through *transport*."""
    with trio.fail_after(5):
        for _ in range(count):
            await transport.news.acquire()


@pytest.mark.parametrize("failure", [UdpUnsupportedError("no"), TransportDownError("down"), None])
async def test_each_datagram_is_routed_and_the_first_way_that_carries_it_is_taken(
    failure: Exception | None,
) -> None:
    """One that a change of the profile has taken away since the decision carries nothing."""
    edge = FakeTransport()
    ways: dict[str, Transport] = {} if failure is None else {"dev": FakeTransport(failure)}
    target = Target("10.0.0.1", 53)
    async with open_door(Router(transports={**ways, "edge": edge})) as door:
        async with open_client(door) as client:
            await client.send(target, b"one")
            await client.send(Target("192.0.2.1", 53), b"rejected")
            await client.send(target, b"two")
            await wait_for(2, edge)
        closed = await door.events.closed()
    assert [datagrams.sent for datagrams in edge.opened] == [[(target, b"one"), (target, b"two")]]
    assert edge.opened[0].closed
    assert door.events.of(UdpAssociationClosed)[0].dropped == 1
    assert closed.upstream == "edge"


async def test_people_are_told_once_where_no_upstream_carries_datagrams() -> None:
    """The client cannot be: SOCKS5 has no answer to a datagram."""
    tcp_only = FakeTransport(UdpUnsupportedError("no"))
    dialer = Router(transports={"dev": tcp_only, "edge": tcp_only})
    async with open_door(dialer) as door:
        async with open_client(door) as client:
            for _ in range(3):
                await client.send(Target("10.0.0.1", 53), b"one")
            await client.send(Target("10.0.0.2", 53), b"same route")
            await client.send(Target("192.0.2.1", 53), b"rejected, as somebody wants it")
            await trio.testing.wait_all_tasks_blocked(0.01)
        closed = await door.events.closed()
        async with open_client(door) as client:
            await client.send(Target("10.0.0.1", 53), b"another association")
            await trio.testing.wait_all_tasks_blocked(0.01)
        await door.events.closed(2)
    first, second = door.events.of(Notice)
    assert first.upstream == second.upstream == "dev"
    assert first.level == "warning"
    assert "no upstream of routes[0] carries UDP (dev, edge): datagrams from 127.0.0.1:" in first.message
    assert "to 10.0.0.1:53 are dropped" in first.message
    assert (closed.outcome, closed.upstream) == ("udp-unsupported", "dev")
    assert closed.detail == "no upstream of routes[0] carries UDP (dev, edge)"
    assert door.events.of(UdpAssociationClosed)[0].dropped == 5


@pytest.mark.parametrize(
    "failure", [ResolutionError("no"), trio.ClosedResourceError(), trio.BrokenResourceError()]
)
async def test_what_cannot_be_sent_is_dropped(failure: Exception) -> None:
    dev = FakeTransport()
    async with open_door(Router(transports={"dev": dev, "edge": FakeTransport()})) as door:
        async with open_client(door) as client:
            await client.send(Target("10.0.0.1", 53), b"one")
            await wait_for(1, dev)
            dev.opened[0].failure = failure
            await client.send(Target("10.0.0.1", 53), b"two")
            await trio.testing.wait_all_tasks_blocked(0.01)
        await door.events.closed()
    assert door.events.of(UdpAssociationClosed)[0].dropped == 1


async def test_only_so_many_upstreams_are_used_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_associate, "MOST_WAYS", 0)
    dev = FakeTransport()
    async with open_door(Router(transports={"dev": dev, "edge": dev})) as door:
        async with open_client(door) as client:
            await client.send(Target("10.0.0.1", 53), b"one")
            await trio.testing.wait_all_tasks_blocked(0.01)
        await door.events.closed()
    assert door.events.of(UdpAssociationClosed)[0].dropped == 1
    assert dev.opened == []


class SlowNames(FakeDialer):
    """Takes for ever to decide about names."""

    async def decide(self, target: Target) -> Decision:
        if target.address is None:
            await trio.sleep_forever()
        return Decision("default", ("direct",))


async def test_names_that_take_long_hold_up_nobody_and_are_bounded() -> None:
    async with open_echo() as target, open_door(SlowNames()) as door:
        async with open_client(door) as client:
            for number in range(MOST_PENDING + 5):
                await client.send(Target(f"n{number}", 53), b"x")
            await client.send(target, b"ping")
            assert await client.receive() == (target, b"PING")
        await door.events.closed()
    assert door.events.of(UdpAssociationClosed)[0].dropped == 5


async def test_a_name_is_given_up_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_inner_door(SlowNames(), limits=Limits(connect=5)) as (door, events):
        with stream_pair() as (client, near), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((LOOPBACK, 0))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_client, door, near, f"{LOOPBACK}:1")
                await client.send_all(ASSOCIATE)
                answer = await read_exactly(client, 12)
                relay = (LOOPBACK, int.from_bytes(answer[-2:], "big"))
                for _ in range(MOST_PENDING):
                    sock.sendto(encode_datagram(Target("slow", 53), b"x"), relay)
                await trio.sleep(10)
                sock.sendto(encode_datagram(Target("slow", 53), b"x"), relay)
                await trio.sleep(1)
                client.close()
    assert events.of(UdpAssociationClosed)[0].dropped == 0


async def test_a_way_that_is_idle_is_closed_and_opened_anew(autojump_clock: trio.testing.MockClock) -> None:
    dev = FakeTransport()
    dialer = Router(transports={"dev": dev, "edge": dev})
    async with open_inner_door(dialer, limits=Limits(idle=3600)) as (door, events):
        with stream_pair() as (client, near), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((LOOPBACK, 0))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_client, door, near, f"{LOOPBACK}:1")
                await client.send_all(ASSOCIATE)
                relay = (LOOPBACK, int.from_bytes((await read_exactly(client, 12))[-2:], "big"))
                sock.sendto(encode_datagram(Target("10.0.0.1", 53), b"one"), relay)
                await trio.sleep(WAY_LIFE * 0.9)
                assert not dev.opened[0].closed
                await trio.sleep(WAY_LIFE * 0.2)
                assert dev.opened[0].closed
                sock.sendto(encode_datagram(Target("10.0.0.1", 53), b"two"), relay)
                await trio.sleep(1)
                assert [len(datagrams.sent) for datagrams in dev.opened] == [1, 1]
                begin = trio.current_time()
                with pytest.raises(trio.BrokenResourceError):
                    await client.receive_some()
                assert trio.current_time() - begin == pytest.approx(3600, abs=900)
    assert events.of(ConnectionClosed)[0].outcome == "idle-timeout"


async def test_what_the_client_says_on_its_connection_means_nothing() -> None:
    async with open_echo() as target, open_door() as door, open_client(door) as client:
        await client.control.send_all(bytes(100_000))
        await client.send(target, b"ping")
        assert await client.receive() == (target, b"PING")


async def test_a_client_that_resets_ends_it() -> None:
    async with open_door() as door, open_client(door) as client:
        client.control.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
        await client.control.aclose()
        assert (await door.events.closed()).outcome == "ok"


async def test_without_descriptors_there_is_no_association(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_near: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socks, "open_client_socket", refuse)
    async with open_door() as door:
        async with await door.connect() as control:
            await control.send_all(ASSOCIATE)
            assert await read_all(control) == b"\x05\x00" + b"\x05\x01\x00\x01" + bytes(6)
        closed = await door.events.closed()
    assert (closed.outcome, closed.detail) == (
        "transport-down",
        "no socket for datagrams: Too many open files",
    )


async def test_a_client_whose_socket_is_gone_does_not_end_it() -> None:
    """What the system tells of a closed port belongs to a datagram that is lost already."""
    async with open_echo() as target, open_door() as door, open_client(door) as client:
        await client.send(target, b"ping")
        client.socket.close()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert door.events.of(ConnectionClosed) == []


async def test_an_address_that_is_not_ours_leaves_no_socket() -> None:
    with stream_pair() as (near, _):
        near.socket.close()
        with pytest.raises(OSError, match="Bad file"):
            udp_associate.open_client_socket(near)

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from awg_obfs import associations, named_datagrams
from awg_obfs.associations import Association, AssociationTable
from awg_obfs.background import open_background
from awg_obfs.destinations import Destinations
from awg_obfs.errors import DialFault, TunnelDialError
from awg_obfs.named_datagrams import FAILURE_LIFE, MOST_WAITING
from awg_obfs.policy import Policy, networks
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.datagram_wire import Datagram, Piece, Whole, decode_body, decode_frame, encode_frames
from awg_obfs.protocol.reassembly import Reassembly
from awg_obfs.protocol.tunnel_wire import encode_address
from tests.support.tunnels import FORBIDDEN, LENIENT, eventually, open_udp_echo

SECONDS = 10
ROOM = 1200
NUMBER = 3


@attrs.define(eq=False)
class Client:
    """The other end of an association: keeps the datagrams that come out."""

    datagrams: list[Datagram] = attrs.field(factory=list[Datagram])
    frames: list[bytes] = attrs.field(factory=list[bytes])
    _reassembly: Reassembly = attrs.field(factory=Reassembly)
    _came: trio.Event = attrs.field(factory=trio.Event)

    def take(self, frame: bytes) -> None:
        held = decode_frame(frame)
        self.frames.append(frame)
        assert held.association == NUMBER
        body = held.body if isinstance(held, Whole) else self._reassembly.add(held, 0.0)
        if body is not None:
            self.datagrams.append(decode_body(body))
            self._came.set()
            self._came = trio.Event()

    async def wait_for(self, count: int) -> list[Datagram]:
        while len(self.datagrams) < count:
            await self._came.wait()
        return self.datagrams


def send(association: Association, address: Address, payload: bytes, room: int = ROOM) -> None:
    for frame in encode_frames(NUMBER, encode_address(*address), payload, room, 1):
        association.take(decode_frame(frame), trio.current_time())


@asynccontextmanager
async def open_association(client: Client, policy: Policy = LENIENT) -> AsyncGenerator[Association]:
    association = Association(NUMBER, Destinations(policy), client.take, ROOM)
    try:
        with trio.fail_after(SECONDS):
            async with open_background() as nursery:
                nursery.start_soon(association.run)
                yield association
    finally:
        association.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_go_there_and_come_back(host: str) -> None:
    client = Client()
    async with open_udp_echo(host) as address, open_association(client) as association:
        for size in (0, 1, 1000, 5000, 60_000):
            send(association, address, bytes(size))
            assert (await client.wait_for(1)).pop() == Datagram(*address, bytes(size))
        assert max(map(len, client.frames)) <= ROOM
        assert (association.counters.sent, association.counters.received, association.counters.dropped) == (
            5,
            5,
            0,
        )
        assert association.progress() == 10


async def test_names_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    client, lookups = Client(), 0
    addresses = Destinations.addresses

    async def counted(self: Destinations, host: str, port: int) -> list[Address]:
        nonlocal lookups
        lookups += 1
        return await addresses(self, host, port)

    monkeypatch.setattr(Destinations, "addresses", counted)
    async with open_udp_echo() as (_, port), open_association(client) as association:
        for _ in range(3):
            send(association, ("localhost", port), b"by name")
            # They answer from the address, not by the name.
            assert (await client.wait_for(1)).pop().payload == b"by name"
    assert lookups == 1


async def test_a_slow_name_is_not_in_the_way_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    client, answered = Client(), trio.Event()
    addresses = Destinations.addresses

    async def slow(self: Destinations, host: str, port: int) -> list[Address]:
        if host == "slow.example":
            await answered.wait()
        return await addresses(self, "localhost", port)

    monkeypatch.setattr(Destinations, "addresses", slow)
    async with open_udp_echo() as (_, port), open_association(client) as association:
        for number in range(MOST_WAITING):
            send(association, ("slow.example", port), f"slow {number}".encode())
        send(association, ("quick.example", port), b"quick")
        assert (await client.wait_for(1)).pop().payload == b"quick"
        answered.set()
        # What has waited is sent, and in order; what found no room is lost.
        kept = MOST_WAITING - association.counters.dropped
        assert [datagram.payload for datagram in await client.wait_for(kept)] == [
            f"slow {number}".encode() for number in range(kept)
        ]


async def test_a_name_without_address_is_looked_up_now_and_then(
    monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    lookups = 0

    async def fail(_self: Destinations, _host: str, _port: int) -> list[Address]:
        nonlocal lookups
        lookups += 1
        await trio.lowlevel.checkpoint()
        raise TunnelDialError(DialFault.RESOLUTION, "the name has no address")

    monkeypatch.setattr(Destinations, "addresses", fail)
    async with open_association(Client()) as association:
        for _ in range(3):
            send(association, ("no-such-host.invalid", 53), b"lost")
            await wait_all_tasks_blocked()
        assert (lookups, association.counters.dropped) == (1, 3)
        mock_clock.jump(FAILURE_LIFE + 0.1)
        send(association, ("no-such-host.invalid", 53), b"lost")
        await wait_all_tasks_blocked()
        assert (lookups, association.counters.dropped) == (2, 4)


async def test_a_name_that_there_is_not_is_a_lost_datagram() -> None:
    client = Client()
    async with open_udp_echo() as address, open_association(client) as association:
        send(association, ("no-such-host.invalid", 53), b"lost")
        send(association, address, b"found")
        await client.wait_for(1)
        await eventually(lambda: association.counters.dropped)


async def test_the_policy_holds_for_datagrams() -> None:
    client = Client()
    async with open_udp_echo(FORBIDDEN) as forbidden, open_association(client) as association:
        send(association, forbidden, b"out")
        send(association, ("::ffff:" + forbidden[0], forbidden[1]), b"out")
        assert association.counters.dropped == 2
        assert association.counters.sent == 0


async def test_nothing_comes_in_from_where_the_client_may_not_go() -> None:
    client = Client()
    inside = Policy(deny=networks("127.0.0.0/8"))
    async with open_association(client, inside) as association:
        port = association._socket.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"knock", ("127.0.0.1", port))
            sock.sendto(b"knock", ("127.0.0.1", port))
        await eventually(lambda: association.counters.dropped == 2)
    assert client.frames == []


async def test_refused_datagrams_do_not_end_the_association() -> None:
    """The system reports an ICMP answer with the next call, whichever that is."""
    client = Client()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        nobody: Address = sock.getsockname()
    async with open_udp_echo() as address, open_association(client) as association:
        for _ in range(3):
            send(association, nobody, b"?")
            await wait_all_tasks_blocked()
        send(association, address, b"!")
        assert (await client.wait_for(1)).pop() == Datagram(*address, b"!")
        assert association.counters.sent == 4


async def test_what_is_no_datagram_is_dropped() -> None:
    client = Client()
    async with open_association(client) as association:
        association.take(Whole(NUMBER, b"\1short"), 0.0)
        association.take(Piece(NUMBER, 1, 0, 2, b"half"), 0.0)
        assert association.counters.dropped == 1


async def test_only_so_many_datagrams_wait_for_the_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_self: Destinations, _host: str, _port: int) -> list[Address]:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(Destinations, "addresses", never)
    async with open_association(Client()) as association:
        for number in range(MOST_WAITING + 5):
            send(association, (f"{number}.example", 1), b"")
        assert association.counters.dropped == 5


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(associations, "MOST_SOURCES", 2)
    monkeypatch.setattr(named_datagrams, "MOST_NAMES", 2)
    client = Client()
    async with open_association(client) as association:
        port = association._socket.getsockname()[1]
        for _ in range(5):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"", ("127.0.0.1", port))
            await client.wait_for(1)
            client.datagrams.clear()
        for number in (1, 2, 3, 4):
            send(association, ("localhost", number), b"")
        await eventually(lambda: association.counters.sent == 4)
        assert len(association._sources) == len(association._names._answers) == 2


async def test_an_association_ends_when_told_to() -> None:
    association = Association(NUMBER, Destinations(LENIENT), Client().take, ROOM)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(association.run)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        association.expire()
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks
    association.close()


async def test_the_table_hands_frames_to_their_associations() -> None:
    table, client = AssociationTable(most=1), Client()
    async with open_udp_echo() as address, open_association(client) as association:
        (frame,) = encode_frames(NUMBER, encode_address(*address), b"ping", ROOM, 1)
        (stray,) = encode_frames(NUMBER + 1, encode_address(*address), b"stray", ROOM, 1)
        table.take(frame, 0.0)
        table.add(association)
        assert table.is_full
        for each in (frame, stray, b"", b"\x03\x09"):
            table.take(each, 0.0)
        assert [datagram.payload for datagram in await client.wait_for(1)] == [b"ping"]
        table.discard(association)
        table.discard(association)
        assert not table.is_full


async def test_there_are_associations_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_ipv6", False)
    client = Client()
    async with open_udp_echo() as address, open_association(client) as association:
        send(association, ("2001:db8::1", 53), b"")
        assert association.counters.dropped == 1
        send(association, address, b"IPv4")
        assert (await client.wait_for(1)).pop() == Datagram(*address, b"IPv4")

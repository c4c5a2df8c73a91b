from __future__ import annotations

import gc
import random
import socket
import weakref
from collections.abc import Callable, Sequence

import attrs
import pytest
import trio
import trio.testing

from awg_obfs.addresses import ANY_IPV4, ANY_IPV6
from awg_obfs.backlog import MAX_WAITING_BYTES
from awg_obfs.endpoint import FAULT_INTERVAL, LINGER, PeerPath, open_endpoint
from awg_obfs.errors import BindError
from awg_obfs.events import (
    HandshakeCompleted,
    HandshakeSent,
    NetworkChange,
    NetworkChanged,
    PathTooNarrow,
    PeerMoved,
    Rebound,
    SendingFailed,
)
from awg_obfs.paths import DatagramPath
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.device import Device
from awg_obfs.protocol.messages import Buffer
from awg_obfs.protocol.noise import PrivateKey
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.sizes import quic_datagram_size
from awg_obfs.udp import UdpSocket
from tests.support.awg_endpoints import LOOPBACK, Listener, Pair, make_device, open_pair
from tests.support.awg_world import OBFUSCATED
from tests.support.udp_relay import open_udp_relay

KINDS = [True, False]
SECONDS = 5
MESSAGES = [b"%04d" % number for number in range(300)]


@pytest.mark.parametrize("offload", KINDS)
@pytest.mark.parametrize("server", [LOOPBACK, ("::1", 0)], ids=["IPv4", "IPv6"])
async def test_messages_go_both_ways(server: Address, offload: bool) -> None:
    with trio.fail_after(SECONDS):
        async with open_pair(server=server, parameters=OBFUSCATED, offload=offload) as pair:
            await pair.meet()
            pair.client.send(pair.to_server, MESSAGES)
            pair.server.send(pair.to_client, MESSAGES)
            assert await pair.at_server.wait_for(301) == [b"hello", *MESSAGES]
            assert await pair.at_client.wait_for(300) == MESSAGES
            assert pair.at_server.peers[0] is pair.to_client
            assert len(pair.at_client.told(HandshakeCompleted)) == 1
            assert pair.client.address[1] == pair.at_server.told(PeerMoved)[0].new[1]


@pytest.mark.parametrize("server", [LOOPBACK, ("::1", 0)], ids=["IPv4", "IPv6"])
async def test_one_socket_serves_both_families(server: Address) -> None:
    """What comes over IPv4 has an IPv4 address, also to the device."""
    with trio.fail_after(SECONDS):
        async with open_pair(
            server=ANY_IPV6, client=ANY_IPV6, via=lambda address: (server[0], address[1])
        ) as pair:
            await pair.meet()
            assert pair.at_server.told(PeerMoved)[0].new[0] == server[0]
            pair.server.send(pair.to_client, MESSAGES)
            await pair.at_client.wait_for(300)


@attrs.define
class Pipe:
    """The least a user of a path is."""

    path: DatagramPath
    got: list[bytes] = attrs.field(factory=list[bytes])

    def received(self, datagrams: Sequence[Buffer]) -> None:
        self.got += map(bytes, datagrams)
        self.path.send([bytes(datagram)[::-1] for datagram in datagrams])


async def test_a_path_is_the_way_to_one_peer() -> None:
    """It answers from inside the receiver, which is called by the endpoint."""
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            path = pair.server.path(pair.to_client)
            pipe = Pipe(path)
            path.receiver = pipe.received
            pair.client.send(pair.to_server, [b"123", b"456"])
            assert await pair.at_client.wait_for(2) == [b"321", b"654"]
            assert pair.at_server.messages == []
            pair.server.forget(pair.to_client)
            pair.client.send(pair.to_server, [b"789"])
            assert await pair.at_server.wait_for(1) == [b"789"]


async def test_the_size_of_datagrams_follows_the_peer() -> None:
    async with open_pair(parameters=OBFUSCATED) as pair:
        unknown: PeerPath = pair.server.path(pair.to_client, path_mtu=1400)
        assert unknown.max_datagram_size == quic_datagram_size(1400, OBFUSCATED.s4, ipv6=True)
        known = pair.client.path(pair.to_server)
        assert known.max_datagram_size == quic_datagram_size(1500, OBFUSCATED.s4, ipv6=False)


async def test_a_path_knows_how_long_the_handshake_took() -> None:
    """Not before there was one."""
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            assert pair.client.path(pair.to_server).round_trip is None
            await pair.meet()
            for path in (pair.client.path(pair.to_server), pair.server.path(pair.to_client)):
                assert path.round_trip is not None
                assert 0 < path.round_trip < SECONDS


# -- closing


async def test_a_last_word_leaves_with_the_block_and_nothing_after_it() -> None:
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            await pair.meet()
            second = Listener()
            identity = PrivateKey(random.randbytes(32))
            device = make_device(identity)
            peer = pair.server.device.add_peer(identity.public)
            server = device.add_peer(
                pair.client.device.peers[0].public_key, endpoint=("127.0.0.1", pair.server.address[1])
            )
            async with open_endpoint(device, ANY_IPV4, second.receive, second.on_event) as endpoint:
                endpoint.send(server, [b"1"])
                await pair.at_server.wait_until(lambda: peer in pair.at_server.peers)
                path = endpoint.path(server)
                path.send([b"last"])
            path.send([b"too late"])
            endpoint.rehandshake(server)
            endpoint.announce(server)
            endpoint.renew(server)
            assert endpoint.closed
            with pytest.raises(trio.ClosedResourceError):
                endpoint.rebind()
            pair.client.send(pair.to_server, [b"end"])
            await pair.at_server.wait_until(lambda: b"end" in pair.at_server.messages)
            assert pair.at_server.messages == [b"hello", b"1", b"last", b"end"]


async def test_nothing_is_left_after_the_block() -> None:
    """The sockets are closed (else a warning would fail this), and no cycle keeps what they held."""
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            await pair.meet()
            pair.client.rebind()
            remains = weakref.ref(pair.client)
            port = pair.server.address[1]
        del pair
        gc.collect()
        assert remains() is None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", port))


@pytest.mark.parametrize("after", range(6))
async def test_it_can_be_cancelled_at_any_time(after: int) -> None:
    with trio.CancelScope() as scope:
        async with open_pair() as pair:
            for step in range(6):
                if step == after:
                    scope.cancel()
                pair.client.send(pair.to_server, [b"1"])
                await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_what_the_block_raises_comes_out_plain() -> None:
    with pytest.raises(KeyError):
        async with open_pair():
            raise KeyError


async def test_a_port_in_use_is_said_plainly() -> None:
    async with open_pair() as pair:
        listener = Listener()
        with pytest.raises(BindError, match="something else uses this port"):
            async with open_endpoint(pair.client.device, pair.server.address, listener.receive):
                pytest.fail("there is no socket")


# -- the network


async def test_a_client_rebinds_and_nothing_is_lost() -> None:
    """What is under way to the last socket still arrives there, and new messages at the new one."""
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            await pair.meet()
            old = pair.client.address
            pair.server.send(pair.to_client, [b"before"])
            new = pair.client.rebind()
            assert new != old
            assert pair.client.address == new
            assert await pair.at_client.wait_for(1) == [b"before"]
            assert pair.at_client.told(Rebound) == [Rebound(old, new)]
            # The server has not heard of it yet.
            pair.server.send(pair.to_client, [b"to the old one"])
            await pair.at_client.wait_for(2)
            pair.client.announce(pair.to_server)
            await pair.at_server.wait_until(lambda: pair.at_server.told(PeerMoved)[-1].new[1] == new[1])
            pair.server.send(pair.to_client, [b"to the new one"])
            await pair.at_client.wait_for(3)


async def test_only_the_last_two_sockets_are_kept() -> None:
    async with open_pair() as pair:
        sockets = [pair.client._socket]
        for _ in range(4):
            pair.client.rebind()
            sockets.append(pair.client._socket)
        assert [sock.closed for sock in sockets] == [True, True, True, False, False]


async def test_the_last_socket_is_read_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        old = pair.client._socket
        pair.client.rebind()
        await trio.sleep(LINGER - 0.1)
        assert not old.closed
        await trio.sleep(0.2)
        assert old.closed


async def test_a_server_rebinds_to_its_own_port() -> None:
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            address = pair.server.address
            await pair.meet()
            assert pair.server.rebind(address) == address
            assert pair.server.rebind() == address
            pair.client.send(pair.to_server, [b"again"])
            await pair.at_server.wait_for(2)


async def test_a_rebind_that_fails_can_be_repeated() -> None:
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            await pair.meet()
            with pytest.raises(BindError):
                pair.client.rebind(("192.0.2.99", 0))
            pair.client.send(pair.to_server, [b"as before"])
            await pair.at_server.wait_for(2)
            with pytest.raises(BindError):
                pair.client.rebind(("192.0.2.99", 4500))
            pair.client.send(pair.to_server, [b"lost"])
            pair.client.rebind(ANY_IPV4)
            pair.client.send(pair.to_server, [b"back"])
            assert await pair.at_server.wait_for(3) == [b"hello", b"as before", b"back"]


async def test_a_client_that_moves_says_so_without_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = trio.Event()

    async def watch_network(
        towards: Callable[[], Address | None], changed: Callable[[NetworkChange], None]
    ) -> None:
        await moves.wait()
        assert towards() == pair.to_server.endpoint
        changed(NetworkChange.MOVED)

    monkeypatch.setattr("awg_obfs.endpoint.watch_network", watch_network)
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            await pair.meet()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.client.follow_network, pair.to_server)
                moves.set()
            assert pair.at_client.told(NetworkChanged) == [
                NetworkChanged(pair.to_server, NetworkChange.MOVED)
            ]
            port = pair.client.address[1]
            await pair.at_server.wait_until(lambda: pair.at_server.told(PeerMoved)[-1].new[1] == port)


async def test_without_another_socket_the_way_is_renewed_with_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with trio.fail_after(SECONDS):
        async with open_pair(client=LOOPBACK) as pair:
            await pair.meet()
            monkeypatch.setattr(pair.client, "_bind", ("192.0.2.99", 0))
            pair.client.renew(pair.to_server)
            pair.client.send(pair.to_server, [b"here"])
            await pair.at_server.wait_for(2)
            assert pair.at_client.told(Rebound) == []


async def test_a_client_behind_a_moving_nat_is_followed() -> None:
    with trio.fail_after(SECONDS):
        async with open_pair(client=LOOPBACK) as pair, open_udp_relay(pair.server.address) as relay:
            pair.to_server.endpoint = relay.address
            await pair.meet()
            [first] = relay.sources
            relay.rebind()
            pair.client.send(pair.to_server, [b"here"])
            await pair.at_server.wait_for(2)
            [second] = relay.sources
            moved = pair.at_server.told(PeerMoved)
            assert [(event.old, event.new) for event in moved] == [(None, first), (first, second)]
            pair.server.send(pair.to_client, MESSAGES)
            assert await pair.at_client.wait_for(300) == MESSAGES


async def test_bad_networks_do_no_more_than_lose(virtual_time: trio.testing.MockClock) -> None:
    """Duplicates are dropped, and reordered messages come once each."""
    with trio.fail_after(SECONDS):
        async with open_pair(parameters=OBFUSCATED) as pair, open_udp_relay(pair.server.address) as relay:
            pair.to_server.endpoint = relay.address
            await pair.meet()
            relay.up.duplicates, relay.up.reordered, relay.up.loss = 0.3, 0.3, 0.1
            for message in MESSAGES:
                pair.client.send(pair.to_server, [message])
            # Reordered ones are on their way for so long.
            await trio.sleep(relay.up.late + 0.1)
            got = pair.at_server.messages[1:]
            assert len(got) == len(set(got)) == len(MESSAGES) - relay.up.lost
            assert got != sorted(got)


@pytest.mark.parametrize("address", [("127.0.0.1", 0), ("::1", 9), ("fe80::1%no-such-interface", 9)])
async def test_what_cannot_be_sent_is_told_rarely(
    autojump_clock: trio.testing.MockClock, address: Address
) -> None:
    async with open_pair(via=lambda _: address, client=ANY_IPV4) as pair:
        for _ in range(3):
            pair.client.send(pair.to_server, [b"1"])
            await trio.sleep(FAULT_INTERVAL)
        failures = pair.at_client.told(SendingFailed)
        # The device sends again after 5 s.
        assert 2 <= len(failures) <= 4
        assert {event.address for event in failures} == {address}
        assert all(event.reason for event in failures)


async def test_a_narrow_path_is_told() -> None:
    async with open_pair() as pair:
        pair.client._socket._on_narrow(("192.0.2.7", 1), 1400)
        pair.client.pump()
        assert pair.at_client.told(PathTooNarrow) == [PathTooNarrow(("192.0.2.7", 1), 1400)]


async def test_a_socket_with_nothing_but_errors_is_asked_rarely(
    virtual_time: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def fail(self: UdpSocket) -> list[tuple[Address, list[Buffer]]]:
        nonlocal asked
        asked += 1
        self.traffic.receive_faults["ENETDOWN"] += 1
        return []

    async with open_pair() as pair:
        await pair.meet()
        monkeypatch.setattr(UdpSocket, "receive_batch", fail)
        pair.client.send(pair.to_server, [b"1"])
        await trio.sleep(0.3)
        assert 1 < asked < 20


# -- want of room


@attrs.define(eq=False)
class Door:
    """Stands between an endpoint and its socket: has room for *room* datagrams."""

    room: int = 0
    passed: list[bytes] = attrs.field(factory=list[bytes])
    opened: trio.Event = attrs.field(factory=trio.Event)

    def send(self, _address: Address, datagrams: Sequence[bytes]) -> int:
        count = min(self.room, len(datagrams))
        self.room -= count
        self.passed += datagrams[:count]
        return count

    async def wait_writable(self) -> None:
        await self.opened.wait()
        self.opened = trio.Event()

    def open(self, room: int) -> None:
        self.room = room
        self.opened.set()

    def guard(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pair.client._socket, "send", self.send)
        monkeypatch.setattr(pair.client._socket, "wait_writable", self.wait_writable)


async def test_what_there_is_no_room_for_waits_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            await pair.meet()
            door = Door(room=3)
            door.guard(pair, monkeypatch)
            for number in range(5):
                pair.client.send(pair.to_server, [b"%d" % number] * 2)
            assert len(door.passed) == 3
            for room, passed in ((4, 7), (0, 7), (100, 10)):
                door.open(room)
                await trio.testing.wait_all_tasks_blocked()
                assert len(door.passed) == passed
            monkeypatch.undo()
            for datagram in door.passed:
                pair.client._socket.send(("127.0.0.1", pair.server.address[1]), [datagram])
            got = await pair.at_server.wait_for(11)
            assert got[1:] == [b"%d" % number for number in range(5) for _ in range(2)]


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            await pair.meet()
            door = Door()
            door.guard(pair, monkeypatch)
            for _ in range(1000):
                pair.client.send(pair.to_server, [bytes([1]) * 1328])
            kept = MAX_WAITING_BYTES // 1360
            assert pair.client.crowded_out == 1000 - kept
            door.open(10_000)
            await trio.testing.wait_all_tasks_blocked()
            assert len(door.passed) == kept
            # All is as before.
            pair.client.send(pair.to_server, [b"1"])
            assert len(door.passed) == kept + 1


async def test_what_waits_leaves_by_the_next_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            await pair.meet()
            Door().guard(pair, monkeypatch)
            pair.client.send(pair.to_server, [b"waits"])
            await trio.testing.wait_all_tasks_blocked()
            pair.client.rebind()
            assert await pair.at_server.wait_for(2) == [b"hello", b"waits"]


# -- time


async def test_timers_fire_in_time(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody answers: an initiation leaves every 5 s."""
    async with open_pair(via=lambda address: ("127.0.0.1", address[1])) as pair:
        pair.server.close()
        start = trio.current_time()
        sent: list[float] = []

        def note(event: object) -> None:
            if isinstance(event, HandshakeSent):
                sent.append(trio.current_time() - start)

        pair.client._on_event = note
        pair.client.send(pair.to_server, [b"1"])
        await trio.sleep(21)
        assert sent == pytest.approx([0, 5, 10, 15, 20], abs=0.01)


async def test_a_device_whose_timer_stands_still_does_not_stop_others(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def handle_timer(_self: Device, _now: float) -> None:
        nonlocal asked
        asked += 1

    def next_timer(_self: Device) -> float:
        return 0.0

    async with open_pair() as pair:
        monkeypatch.setattr(Device, "handle_timer", handle_timer)
        monkeypatch.setattr(Device, "next_timer", next_timer)
        pair.client.pump()
        await trio.sleep(0.1)
        assert 50 <= asked <= 250


async def test_a_handshake_can_be_asked_for() -> None:
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:
            pair.client.rehandshake(pair.to_server)
            await pair.at_client.wait_until(lambda: pair.at_client.told(HandshakeCompleted))
            assert pair.to_server.has_session
            assert [event.peer for event in pair.at_client.told(HandshakeSent)] == [pair.to_server]


async def test_an_event_may_cause_something_to_be_sent() -> None:
    """The pump goes on until nothing is left, also when it is called from inside."""
    with trio.fail_after(SECONDS):
        async with open_pair() as pair:

            def on_event(event: object) -> None:
                if isinstance(event, HandshakeCompleted):
                    peer: Peer = event.peer
                    pair.client.send(peer, [b"from the event"])

            pair.client._on_event = on_event
            pair.client.rehandshake(pair.to_server)
            assert await pair.at_server.wait_for(1) == [b"from the event"]


async def test_reading_lets_others_have_their_turn() -> None:
    """A flood is read in batches; between them, others run."""
    async with open_pair(offload=False) as pair:
        await pair.meet()
        turns_at: list[int] = []

        async def look() -> None:
            while len(pair.at_server.messages) < 1001:
                turns_at.append(len(pair.at_server.messages))
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                pair.client.send(pair.to_server, [bytes([1]) * 100] * 100)
            with trio.fail_after(SECONDS):
                nursery.start_soon(look)
                await pair.at_server.wait_for(1001)
        # In about every other pass, at least: which task goes first is random.
        assert len(set(turns_at)) >= 1000 // 64 // 2

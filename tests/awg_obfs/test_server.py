from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from awg_obfs.client import Tunnel, TunnelState, open_tunnel
from awg_obfs.errors import BindError, NarrowPathError, TunnelDialError
from awg_obfs.events import (
    HandshakeAnswered,
    HandshakeSent,
    Rejection,
    SessionDown,
    SessionUp,
    StreamClosed,
    StreamOutcome,
)
from awg_obfs.limits import Limits
from awg_obfs.protocol.keys import new_private_key, public_key_of
from awg_obfs.protocol.messages import Buffer
from awg_obfs.protocol.parameters import DEFAULT
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.timers import INITIATION_INTERVAL, REKEY_TIMEOUT
from awg_obfs.quic.errors import Cause, ConnectionLostError
from awg_obfs.server import ServerPeer, ServerSettings, serve_tunnels
from awg_obfs.udp import UdpSocket
from tests.support.quic_engines import aioquic_client
from tests.support.tunnel_ends import receive_exactly
from tests.support.tunnels import (
    LOOPBACK,
    TunnelWorld,
    eventually,
    open_destination,
    open_tunnel_world,
    read_all,
)

SECONDS = 20


async def test_peers_are_shown_while_they_are_connected() -> None:
    with trio.fail_after(SECONDS):
        async with open_destination() as port, open_tunnel_world() as world:
            server = world.server.handle
            assert server.sessions() == ()
            async with world.open_tunnel() as tunnel:
                stream = await tunnel.connect("127.0.0.1", port, b"!")
                await receive_exactly(stream, 1)
                (session,) = server.sessions()
                assert (session.peer, session.streams) == ("laptop", 1)
                assert session.address in world.relay.sources
                assert session.since <= trio.current_time()
                assert session.sent > 0
                assert session.received > 0
            await world.server.diary.wait_for(SessionDown)
            assert server.sessions() == ()
            (up,) = world.server.diary.told(SessionUp)
            assert (up.peer.name, up.setup > 0) == ("laptop", True)


@asynccontextmanager
async def another_client(world: TunnelWorld, name: str) -> AsyncGenerator[Tunnel]:
    """A client of another peer, which the server has to know by that name."""
    async with open_tunnel(
        attrs.evolve(world.client, private_key=KEYS[name], preshared_key=bytes(32))
    ) as tunnel:
        yield tunnel


KEYS = {name: new_private_key(os.urandom) for name in ("phone", "stranger")}


@asynccontextmanager
async def world_of_two(limits: Limits | None = None) -> AsyncGenerator[TunnelWorld]:
    """A world whose server knows a phone as well."""
    async with open_tunnel_world(limits=limits) as world:
        await world.server.kill()
        phone = ServerPeer(name="phone", public_key=public_key_of(KEYS["phone"]))
        settings = world.server.settings
        world.server.settings = attrs.evolve(settings, peers=[*settings.peers, phone])
        await world.server.start()
        yield world


async def test_peers_have_their_own_sessions() -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_destination() as port,
            world_of_two() as world,
            world.open_tunnel() as laptop,
            another_client(world, "phone") as phone,
        ):
            for tunnel in (laptop, phone):
                stream = await tunnel.connect("127.0.0.1", port, b"!")
                await receive_exactly(stream, 1)
            assert {session.peer for session in world.server.handle.sessions()} == {"laptop", "phone"}


async def test_there_are_so_many_clients_at_a_time(virtual_time: MockClock) -> None:
    with trio.fail_after(SECONDS):
        async with world_of_two(Limits(sessions=1)) as world:
            async with world.open_tunnel(), another_client(world, "phone") as phone:
                await eventually(lambda: "allows 1 clients" in phone.reason)
                assert phone.state is TunnelState.STARTING
            await trio.sleep(2 * INITIATION_INTERVAL)
            async with another_client(world, "phone") as phone:
                await phone.wait_ready()


async def test_peers_may_come_and_go_while_others_stay(virtual_time: MockClock) -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_destination() as port,
            open_tunnel_world() as world,
            world.open_tunnel() as laptop,
            another_client(world, "phone") as phone,
        ):
            server = world.server.handle
            laptop_peer = world.server.settings.peers[0]
            phone_peer = ServerPeer(name="phone", public_key=public_key_of(KEYS["phone"]))
            stays = await laptop.connect("127.0.0.1", port, b"!")
            await receive_exactly(stays, 1)
            assert phone.state is TunnelState.STARTING

            server.change_peers([laptop_peer, phone_peer])
            await phone.wait_ready()
            ends = await phone.connect("127.0.0.1", port, b"?")
            await receive_exactly(ends, 1)

            server.change_peers([laptop_peer])
            with pytest.raises(trio.BrokenResourceError):
                await ends.receive_some()
            await eventually(lambda: [each.peer for each in server.sessions()] == ["laptop"])
            known = server.rejections[Rejection.UNKNOWN_PEER]
            await eventually(lambda: server.rejections[Rejection.UNKNOWN_PEER] > known)

            server.change_peers([phone_peer, laptop_peer])
            await phone.wait_ready()
            await stays.send_all(b"still")
            assert await receive_exactly(stays, 5) == b"still"
            assert [each.peer.name for each in world.server.diary.told(SessionUp)] == [
                "laptop",
                "phone",
                "phone",
            ]


@pytest.mark.parametrize("change", [{"name": "desk"}, {"preshared_key": bytes(range(32))}])
async def test_a_peer_that_is_another_one_now_comes_in_anew(
    virtual_time: MockClock, change: dict[str, object]
) -> None:
    with trio.fail_after(SECONDS):
        async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:
            stream = await tunnel.connect("127.0.0.1", port, b"!")
            await receive_exactly(stream, 1)
            [peer] = world.server.settings.peers
            server = world.server.handle
            # What is the same changes nothing, whatever is remembered of it.
            server.change_peers([attrs.evolve(peer, last_timestamp=bytes(12))])
            await stream.send_all(b"!")
            await receive_exactly(stream, 1)
            server.change_peers([attrs.evolve(peer, **change)])
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            if "name" in change:
                await eventually(lambda: [each.peer for each in server.sessions()] == ["desk"])
            else:
                await eventually(lambda: not server.sessions())


async def test_who_is_gone_before_its_connection_is_made_is_not_served(virtual_time: MockClock) -> None:
    with trio.fail_after(SECONDS):
        async with open_tunnel_world() as world:
            server = world.server.handle
            [peer] = world.server.settings.peers
            begin = server._begin  # pyright: ignore[reportPrivateUsage]

            def begin_late(peer: Peer, datagrams: Sequence[Buffer]) -> None:
                begin(peer, datagrams)
                server.change_peers([])

            server._begin = begin_late  # pyright: ignore[reportPrivateUsage]
            async with world.open_tunnel(ready=False):
                await eventually(lambda: server.rejections)
                await wait_all_tasks_blocked()
                assert not world.server.diary.told(SessionUp)
                assert server._sessions == {}  # pyright: ignore[reportPrivateUsage]
                server._begin = begin  # pyright: ignore[reportPrivateUsage]
                server.change_peers([peer])
                await eventually(lambda: world.server.diary.told(SessionUp))


async def test_a_stranger_gets_no_answer(virtual_time: MockClock) -> None:
    """Not one byte: the key is not among the peers."""
    with trio.fail_after(SECONDS):
        async with open_tunnel_world() as world:
            world.relay.seen = []
            async with another_client(world, "stranger") as tunnel:
                await trio.sleep(REKEY_TIMEOUT + 1)
                assert world.server.handle.rejections[Rejection.UNKNOWN_PEER] == 2
                assert tunnel.state is TunnelState.STARTING
            assert all(seen.upwards for seen in world.relay.seen)
            assert not world.server.diary.told(HandshakeAnswered)


async def test_a_client_that_begins_anew_replaces_its_last_connection(virtual_time: MockClock) -> None:
    """It has crashed, perhaps: the server must not wait for the old connection to fall silent."""
    with trio.fail_after(SECONDS):
        async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:
            await tunnel.connect("127.0.0.1", port)
            # The server hears no peer's request for keys right after another.
            await trio.sleep(2 * INITIATION_INTERVAL)
            async with open_tunnel(world.client) as newer:
                # The same key, so the same peer.
                await newer.wait_ready()
                await world.server.diary.wait_for(SessionUp, 2)
                (closed,) = await world.server.diary.wait_for(StreamClosed)
                assert closed.outcome is StreamOutcome.RESET
                stream = await newer.connect("127.0.0.1", port, b"!")
                await receive_exactly(stream, 1)


@pytest.mark.parametrize("late", [0, 1, 3])
async def test_a_client_begins_anew_among_what_is_late_of_its_last_connection(
    virtual_time: MockClock, late: int
) -> None:
    """A burst may hold both: what begins a connection goes to that one, from the first packet on."""
    with trio.fail_after(SECONDS):
        async with open_tunnel_world() as world, world.open_tunnel():
            server = world.server.handle
            sessions = server._sessions  # pyright: ignore[reportPrivateUsage]
            ((peer, before),) = sessions.items()
            client = aioquic_client()
            client.connect(0.0)
            packet = b"\x41" + bytes(40)
            begin = client.datagrams_to_send(0.0)
            server._received(peer, [packet] * late + begin + [packet])  # pyright: ignore[reportPrivateUsage]
            after = sessions[peer]
            assert after is not before
            assert before.connection is not None
            assert before.connection.failure is not None
            await eventually(lambda: after.connection is not None)
            assert after.connection is not None
            # What is sent again of its beginning does not begin another.
            await trio.sleep(0.05)
            assert not any(map(after.connection.is_replaced_by, begin))


async def test_one_connection_that_goes_wrong_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library raises while it takes what a peer has sent."""

    def fail(*_: object) -> None:
        raise KeyError("what the peer has sent")

    with trio.fail_after(SECONDS):
        async with (
            open_destination() as port,
            world_of_two() as world,
            world.open_tunnel() as laptop,
            another_client(world, "phone") as phone,
        ):
            for tunnel in (laptop, phone):
                stream = await tunnel.connect("127.0.0.1", port, b"!")
                await receive_exactly(stream, 1)
            sessions = world.server.handle._sessions  # pyright: ignore[reportPrivateUsage]
            connection = next(each.connection for peer, each in sessions.items() if peer.name == "phone")
            assert connection is not None
            monkeypatch.setattr(connection._engine, "receive", fail)  # pyright: ignore[reportPrivateUsage]
            (down,) = await world.server.diary.wait_for(SessionDown)
            assert down.peer.name == "phone"
            assert "KeyError in the QUIC library" in down.reason
            assert "what the peer" not in down.reason
            stream = await laptop.connect("127.0.0.1", port, b"!")
            await receive_exactly(stream, 1)
            # It is told, and comes back.
            await world.server.diary.wait_for(SessionUp, 3)


async def test_a_client_that_does_not_finish_its_handshake_is_not_kept(virtual_time: MockClock) -> None:
    with trio.fail_after(SECONDS):
        async with open_tunnel_world(limits=Limits(handshake=0.3)) as world:
            # The session is up, and QUIC begins; but nothing of the server's answer arrives.
            world.relay.down.mtu = 600
            async with world.open_tunnel(ready=False):
                await eventually(lambda: world.server.handle._sessions)
                world.relay.blackout()
                await eventually(lambda: not world.server.handle._sessions)
            assert not world.server.diary.told(SessionUp)


async def test_a_server_that_stops_lets_connections_finish() -> None:
    with trio.fail_after(SECONDS):
        async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:
            stream = await tunnel.connect("127.0.0.1", port)
            world.server.stop.set()
            await wait_all_tasks_blocked()
            with pytest.raises(TunnelDialError, match="is stopping"):
                await tunnel.connect("127.0.0.1", port)
            await stream.send_all(b"the rest")
            await stream.send_eof()
            assert await read_all(stream) == b"the rest"
            await world.server.over.wait()
            await eventually(lambda: tunnel.state is TunnelState.STARTING)
            assert tunnel.reason == "the server is stopping"


async def test_a_server_that_stops_does_not_wait_for_ever(virtual_time: MockClock) -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_destination() as port,
            open_tunnel_world(limits=Limits(drain=0.3)) as world,
            world.open_tunnel() as tunnel,
        ):
            stream = await tunnel.connect("127.0.0.1", port)
            began = trio.current_time()
            world.server.stop.set()
            await world.server.over.wait()
            assert trio.current_time() - began == pytest.approx(0.3, abs=0.01)
            with pytest.raises(ConnectionLostError) as caught:
                await stream.receive_some()
            assert caught.value.failure.cause is Cause.PEER_CLOSED
            assert world.server.diary.told(StreamClosed)[0].outcome is StreamOutcome.DRAINED


async def test_a_recorded_handshake_is_worth_nothing_after_a_restart() -> None:
    with trio.fail_after(SECONDS):
        async with open_tunnel_world() as world:
            world.relay.seen = []
            async with world.open_tunnel():
                pass
            recorded = [seen.datagram for seen in world.relay.seen if seen.upwards]
            await world.server.kill()
            await world.server.start()
            answered = len(world.server.diary.told(HandshakeAnswered))
            sock = UdpSocket(LOOPBACK)
            sock.send(world.server.handle.address, recorded)
            await eventually(lambda: world.server.handle.rejections[Rejection.OLD_TIMESTAMP])
            assert len(world.server.diary.told(HandshakeAnswered)) == answered
            assert sock.receive_batch() == []
            sock.close()


async def test_a_port_that_is_taken_is_told() -> None:
    async with open_tunnel_world() as world:
        with pytest.raises(BindError, match="something else uses this port"):
            await serve_tunnels(world.server.settings)


async def test_a_path_that_is_too_narrow_for_quic_is_told_before_anybody_comes() -> None:
    async with open_tunnel_world() as world:
        settings = attrs.evolve(
            world.server.settings, listen=("::1", 0), parameters=attrs.evolve(DEFAULT, s4=20), mtu=1280
        )
        with pytest.raises(NarrowPathError, match="over IPv6, mtu 1280 and s4 20 leave QUIC 1168 bytes"):
            await serve_tunnels(settings)


async def test_peers_have_different_keys() -> None:
    key = new_private_key(os.urandom)
    twins = [ServerPeer(name=name, public_key=public_key_of(key)) for name in ("one", "two")]
    with pytest.raises(ValueError, match="two peers"):
        await serve_tunnels(ServerSettings(listen=LOOPBACK, private_key=key, peers=twins))


def test_secrets_are_not_shown() -> None:
    peer = ServerPeer(name="laptop", public_key=b"public", preshared_key=b"shared", last_timestamp=b"stamp")
    settings = ServerSettings(listen=LOOPBACK, private_key=b"private", peers=[peer])

    assert not any(secret in repr(settings) for secret in ("private'", "shared'", "stamp'"))


async def test_the_server_asks_for_nothing() -> None:
    """It has no endpoints of its peers to begin with."""
    async with open_tunnel_world() as world, world.open_tunnel():
        assert not world.server.diary.told(HandshakeSent)

"""Recovery, in virtual time over UDP on loopback: seconds here are those that users wait."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
from trio.testing import MockClock

from awg_obfs import upkeep
from awg_obfs.addresses import shown
from awg_obfs.client import Tunnel
from awg_obfs.condition import CLUE_LASTS, NOTHING_THROUGH, TunnelState
from awg_obfs.errors import BindError, DialFault, TunnelDialError
from awg_obfs.events import (
    DatagramRejected,
    HandshakeCompleted,
    LookUpFailed,
    PeerMoved,
    Reconnecting,
    Rejection,
    SessionDown,
    SessionUp,
)
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.parameters import Parameters
from awg_obfs.protocol.sizes import QUIC_SMALLEST, quic_datagram_size
from awg_obfs.protocol.timers import REKEY_TIMEOUT
from awg_obfs.quic.errors import Cause, ConnectionLostError
from awg_obfs.upkeep import ATTEMPT, LONGEST_PAUSE, LOOK_UP, NEXT_ADDRESS, RENEWAL
from tests.support.tunnel_ends import receive_exactly
from tests.support.tunnels import TunnelWorld, open_destination, open_tunnel_world
from tests.support.udp_relay import open_udp_relay

# What the README promises.
AFTER_BLACKOUT = 3.0
AFTER_RESTART = 6.0


async def passed(condition: Tunnel, *, state: TunnelState = TunnelState.READY) -> float:
    """Wait until a tunnel is in *state*, and return how long that took."""
    began = trio.current_time()
    while condition.state is not state:
        await condition.wait_change()
    return trio.current_time() - began


async def sees(tunnel: Tunnel, port: int) -> None:
    """Check that bytes go through."""
    stream = await tunnel.connect("127.0.0.1", port, b"!")
    assert await receive_exactly(stream, 1) == b"!"
    await stream.aclose()


@pytest.mark.parametrize("down", [0.0, 1.0, 8.0, 40.0])
@pytest.mark.parametrize("quietly", [False, True])
async def test_a_server_that_starts_anew_is_found_without_traffic(
    virtual_time: MockClock, down: float, quietly: bool
) -> None:
    """Whether it says good-bye or not, and however long it was away."""
    async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:
        await trio.sleep(20)
        world.relay.blackout(quietly)
        await world.server.kill()
        await trio.sleep(down)
        world.relay.blackout(False)
        await world.server.start()
        before = len(world.server.diary.told(SessionUp))
        with trio.fail_after(AFTER_RESTART):
            await world.server.diary.wait_for(SessionUp, before + 1)
            await passed(tunnel)
        await sees(tunnel, port)
        (first, *_) = world.at_client.told(SessionDown)
        # It says no more than the client can know.
        forgotten = "the server has forgotten this session: it restarted, or another client uses the same key"
        assert first.reason == (forgotten if quietly else "the server is stopping")
        assert world.at_client.told(Reconnecting)


async def test_an_idle_tunnel_comes_back_after_a_blackout(virtual_time: MockClock) -> None:
    """Soon after it ends, with its streams: QUIC was patient."""
    async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:
        stream = await tunnel.connect("127.0.0.1", port)
        await trio.sleep(20)
        world.relay.blackout()
        assert await passed(tunnel, state=TunnelState.STARTING) < 4
        assert "nothing heard" in tunnel.reason
        assert await passed(tunnel, state=TunnelState.DOWN) == pytest.approx(world.client.patience)
        await trio.sleep(30)
        world.relay.blackout(False)
        assert await passed(tunnel) < AFTER_BLACKOUT
        await stream.send_all(b"still here")
        assert await receive_exactly(stream, 10) == b"still here"
        assert not world.at_client.told(SessionDown)


@pytest.mark.parametrize("length", [70.0, 200.0])
async def test_after_a_long_blackout_streams_are_over_and_the_tunnel_is_not(
    virtual_time: MockClock, length: float
) -> None:
    """Longer than QUIC's patience; and longer than the session's keys last."""
    async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:
        stream = await tunnel.connect("127.0.0.1", port)
        world.relay.blackout()
        dark = trio.current_time()
        with pytest.raises(ConnectionLostError) as caught:
            await stream.receive_some()
        assert caught.value.failure.cause is Cause.IDLE
        assert trio.current_time() - dark < world.client.quic.idle_timeout + 2
        await trio.sleep(dark + length - trio.current_time())
        assert tunnel.state is TunnelState.DOWN
        world.relay.blackout(False)
        assert await passed(tunnel) < AFTER_RESTART
        await sees(tunnel, port)


async def test_a_client_that_comes_from_elsewhere_is_followed(virtual_time: MockClock) -> None:
    """A NAT has forgotten it: nobody who uses the tunnel notices."""
    async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:
        stream = await tunnel.connect("127.0.0.1", port)
        for _ in range(3):
            world.relay.rebind()
            await trio.sleep(3)
            assert tunnel.state is TunnelState.READY
        await stream.send_all(b"!")
        assert await receive_exactly(stream, 1) == b"!"
        assert len(world.server.diary.told(PeerMoved)) >= 3


async def test_a_session_gets_new_keys_in_time(virtual_time: MockClock) -> None:
    """Five minutes without traffic: no connection is lost, no state changes."""
    async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:
        since = tunnel.since
        await trio.sleep(300)
        assert tunnel.since == since
        assert len(world.at_client.told(HandshakeCompleted)) >= 3
        await sees(tunnel, port)


async def test_a_server_whose_answers_are_lost_is_asked_again(virtual_time: MockClock) -> None:
    """The session comes up, QUIC does not: there are so many attempts, with longer and longer pauses."""
    async with open_destination() as port, open_tunnel_world() as world:
        world.relay.down.mtu = 600
        async with world.open_tunnel(ready=False) as tunnel:
            await trio.sleep(4 * (ATTEMPT + LONGEST_PAUSE))
            assert tunnel.state is TunnelState.DOWN
            assert tunnel.reason == f"{shown(world.relay.address)} {NOTHING_THROUGH}"
            world.relay.down.mtu = 65535
            assert await passed(tunnel) < ATTEMPT + LONGEST_PAUSE
            await sees(tunnel, port)


async def test_nobody_at_the_address_is_told(virtual_time: MockClock) -> None:
    async with open_tunnel_world() as world:
        world.relay.blackout()
        async with world.open_tunnel(ready=False) as tunnel:
            with pytest.raises(TunnelDialError, match=r"no answer from 127\.0\.0\.1") as caught:
                await tunnel.connect("127.0.0.1", 80)
            assert caught.value.fault is DialFault.DOWN
            # The device gives a handshake up after 90 s; the tunnel does not.
            await trio.sleep(200)
            world.relay.blackout(False)
            assert await passed(tunnel) < AFTER_RESTART


@pytest.mark.parametrize(
    ("settings", "parameters", "expected"),
    [
        (
            {"preshared_key": bytes(32)},
            {},
            "answers, but the preshared keys differ; make preshared_key the same on both sides",
        ),
        ({}, {"h2": HeaderRange(5, 6)}, "ours is 5-6; make h2 the same on both sides"),
        ({}, {"h4": HeaderRange(5, 6)}, NOTHING_THROUGH),
        ({}, {"s4": 1}, NOTHING_THROUGH),
    ],
    ids=["preshared_key", "h2", "h4", "s4"],
)
async def test_a_server_that_answers_is_not_called_silent(
    virtual_time: MockClock, settings: dict[str, object], parameters: dict[str, object], expected: str
) -> None:
    """Neither soon, nor when it is down, nor long after; and not as if it still did once it has gone."""
    async with open_tunnel_world() as world:
        assert world.client.parameters.s4 != 1
        ours: Parameters = attrs.evolve(world.client.parameters, **parameters)
        world.client = attrs.evolve(world.client, parameters=ours, **settings)
        async with world.open_tunnel(ready=False) as tunnel:
            for pause in (3.4, 10, 100, 200):
                await trio.sleep(pause)
                assert tunnel.reason.startswith(f"{shown(world.relay.address)} ")
                assert tunnel.reason.endswith(expected)
            assert tunnel.state is TunnelState.DOWN
            with pytest.raises(TunnelDialError, match=r"^127\.0\.0\.1:\d+ (answers|agreed)"):
                await tunnel.wait_ready()
            world.relay.blackout()
            await trio.sleep(CLUE_LASTS + ATTEMPT + LONGEST_PAUSE)
            assert tunnel.reason.startswith("no answer from ")


async def test_what_strangers_send_explains_nothing(virtual_time: MockClock) -> None:
    async with open_tunnel_world() as world:
        world.relay.blackout()
        async with world.open_tunnel(ready=False) as tunnel:
            await trio.sleep(1)
            clue = "the preshared keys differ, if it is a peer's"
            said = DatagramRejected(("192.0.2.1", 4443), 92, Rejection.UNREADABLE, clue)
            tunnel._upkeep._happened(said)  # pyright: ignore[reportPrivateUsage]
            assert tunnel.reason == "starting"


# -- names of servers


@attrs.define(eq=False)
class Resolver:
    """Knows *addresses* for every name, or nothing, or does not answer at all while it *hangs*."""

    addresses: list[Address] = attrs.field(factory=list[Address])
    hangs: bool = False
    asked: list[str] = attrs.field(factory=list[str])

    async def look_up(self, host: str, port: int, _threads: trio.CapacityLimiter) -> list[Address]:
        self.asked.append(host)
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        if not self.addresses:
            raise TunnelDialError(DialFault.RESOLUTION, "no such host")
        return [(address, at or port) for address, at in self.addresses]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    resolver = Resolver()
    monkeypatch.setattr(upkeep, "look_up", resolver.look_up)
    return resolver


@asynccontextmanager
async def open_named_world() -> AsyncGenerator[tuple[TunnelWorld, Address]]:
    """A world whose client knows the server by name; yields the address as well."""
    async with open_tunnel_world() as world:
        address = world.client.server
        world.client = attrs.evolve(world.client, server=("server.example", address[1]))
        yield world, address


async def test_a_name_is_looked_up_until_it_is_found(virtual_time: MockClock, resolver: Resolver) -> None:
    async with open_named_world() as (world, address), world.open_tunnel(ready=False) as tunnel:
        await trio.sleep(5)
        assert tunnel.reason == "server.example: no such host"
        resolver.addresses = [address]
        assert await passed(tunnel) < LONGEST_PAUSE + 1
        assert set(resolver.asked) == {"server.example"}


async def test_a_resolver_that_does_not_answer_is_said_to(
    virtual_time: MockClock, resolver: Resolver
) -> None:
    async with open_named_world() as (world, address), world.open_tunnel(ready=False) as tunnel:
        resolver.hangs = True
        resolver.addresses = [address]
        await trio.sleep(LOOK_UP + 0.1)
        assert tunnel.reason == "server.example: the resolver does not answer"
        resolver.hangs = False
        await tunnel.wait_ready()


@pytest.mark.parametrize("other", ["127.9.9.9", "::1"])
async def test_the_next_address_of_a_name_is_tried(
    virtual_time: MockClock, resolver: Resolver, other: str
) -> None:
    """The first is where nobody answers, of the same family as the second or not."""
    async with open_named_world() as (world, address):
        resolver.addresses = [(other, 9), address]
        async with world.open_tunnel(ready=False) as tunnel:
            assert await passed(tunnel) < REKEY_TIMEOUT + 1


async def test_addresses_without_room_for_quic_are_passed_over(
    virtual_time: MockClock, resolver: Resolver
) -> None:
    """Over IPv6, datagrams of a path that just does for IPv4 are too short."""
    async with open_named_world() as (world, address):
        s4 = world.client.parameters.s4
        narrow = next(mtu for mtu in range(1200, 1500) if quic_datagram_size(mtu, s4) >= QUIC_SMALLEST)
        world.client = attrs.evolve(world.client, mtu=narrow)
        resolver.addresses = [("::1", 9)]
        async with world.open_tunnel(ready=False) as tunnel:
            await trio.sleep(2)
            assert "leaves QUIC too little room" in tunnel.reason
            resolver.addresses = [("::1", 9), address]
            assert await passed(tunnel) < LONGEST_PAUSE + 1


async def test_a_name_that_means_another_address_now_leads_there(
    virtual_time: MockClock, resolver: Resolver
) -> None:
    async with open_named_world() as (world, address):
        resolver.addresses = [("127.9.9.9", 9)]
        async with world.open_tunnel(ready=False) as tunnel:
            await trio.sleep(2)
            resolver.addresses = [address]
            assert await passed(tunnel) < REKEY_TIMEOUT + 1


async def test_a_name_that_means_the_same_still_is_tried_again(
    virtual_time: MockClock, resolver: Resolver
) -> None:
    async with open_named_world() as (world, address):
        resolver.addresses = [address]
        world.relay.blackout()
        async with world.open_tunnel(ready=False) as tunnel:
            await trio.sleep(3 * NEXT_ADDRESS)
            resolver.addresses = []
            await trio.sleep(3 * NEXT_ADDRESS)
            world.relay.blackout(False)
            assert await passed(tunnel) < AFTER_RESTART + 1


async def test_a_server_that_has_moved_is_followed_by_its_name(
    virtual_time: MockClock, resolver: Resolver
) -> None:
    """With keys that are good, its streams go on; and its name says so at once, or while nobody hears it any more."""
    async with open_named_world() as (world, address), open_destination() as port:
        resolver.addresses = [address]
        async with (
            world.open_tunnel() as tunnel,
            open_udp_relay(world.server.handle.address) as elsewhere,
            open_udp_relay(world.server.handle.address) as further,
        ):
            stream = await tunnel.connect("127.0.0.1", port)
            world.relay.blackout()
            resolver.addresses = [elsewhere.address]
            assert await passed(tunnel, state=TunnelState.STARTING) < 3
            assert await passed(tunnel) < 1
            elsewhere.blackout()
            await passed(tunnel, state=TunnelState.DOWN)
            resolver.addresses = [further.address]
            assert await passed(tunnel) < RENEWAL + 1
            await stream.send_all(b"still here")
            assert await receive_exactly(stream, 10) == b"still here"
            assert not world.at_client.told(SessionDown)


@pytest.mark.parametrize("later", [0.0, 100.0])
async def test_a_server_that_starts_anew_elsewhere_is_found_by_its_name(
    virtual_time: MockClock, resolver: Resolver, later: float
) -> None:
    """Without traffic, and long before the old keys are over; the name may say so after QUIC has given up."""
    async with open_named_world() as (world, address), open_destination() as port:
        resolver.addresses = [address]
        async with world.open_tunnel() as tunnel, open_udp_relay(address) as elsewhere:
            await sees(tunnel, port)
            world.relay.blackout()
            await world.server.kill()
            await world.server.start()
            elsewhere.target = world.server.handle.address
            await passed(tunnel, state=TunnelState.STARTING)
            await trio.sleep(later)
            resolver.addresses = [elsewhere.address]
            assert await passed(tunnel) < RENEWAL + AFTER_RESTART
            await sees(tunnel, port)


@pytest.mark.parametrize("hangs", [False, True])
async def test_recovery_does_not_wait_for_a_resolver_that_is_dark_as_well(
    virtual_time: MockClock, resolver: Resolver, hangs: bool
) -> None:
    async with open_named_world() as (world, address), open_destination() as port:
        resolver.addresses = [address]
        async with world.open_tunnel() as tunnel:
            await sees(tunnel, port)
            resolver.addresses, resolver.hangs = [], hangs
            world.relay.blackout()
            await passed(tunnel, state=TunnelState.STARTING)
            asked = len(resolver.asked)
            await trio.sleep(20)
            assert "nothing heard" in tunnel.reason
            assert not world.at_client.told(LookUpFailed)
            assert 3 <= len(resolver.asked) - asked <= 5
            world.relay.blackout(False)
            assert await passed(tunnel) < AFTER_BLACKOUT
            asked = len(resolver.asked)
            await trio.sleep(100)
            assert len(resolver.asked) - asked <= 1


# -- what the system may refuse


async def test_a_client_without_sockets_tries_again(
    virtual_time: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_tunnel_world() as world:
        with monkeypatch.context() as patch:
            patch.setattr(upkeep, "open_endpoint", partial(open_endpoint_without, "too many open files"))
            async with world.open_tunnel(ready=False) as tunnel:
                await trio.sleep(1)
                assert "too many open files" in tunnel.reason
                patch.undo()
                assert await passed(tunnel) < LONGEST_PAUSE + 1


@asynccontextmanager
async def open_endpoint_without(reason: str, *_: object) -> AsyncGenerator[None]:
    await trio.lowlevel.checkpoint()
    raise BindError("0.0.0.0", OSError(errno.EMFILE, reason))
    yield

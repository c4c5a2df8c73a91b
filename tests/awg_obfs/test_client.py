from __future__ import annotations

import gc
import os
import random
import socket

import attrs
import pytest
import trio
from trio.testing import MockClock

from awg_obfs.client import TunnelSettings, TunnelState, open_tunnel
from awg_obfs.destinations import Destinations
from awg_obfs.errors import DialFault, TunnelDialError
from awg_obfs.events import SessionUp, StreamClosed, StreamOutcome
from awg_obfs.limits import Limits
from awg_obfs.protocol.noise import NoiseError
from awg_obfs.protocol.timers import INITIATION_INTERVAL
from awg_obfs.quic.errors import StreamResetError
from tests.support.tunnel_ends import receive_exactly
from tests.support.tunnels import (
    FORBIDDEN,
    echo,
    eventually,
    open_destination,
    open_tunnel_world,
    open_udp_echo,
    read_all,
)

SECONDS = 20


async def test_bytes_go_through_a_tunnel_and_come_back() -> None:
    data = random.Random(1).randbytes(2_000_000)
    with trio.fail_after(SECONDS):
        async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            stream = await tunnel.connect("127.0.0.1", port)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                assert await read_all(stream) == data
            await stream.aclose()
            (closed,) = await world.server.diary.wait_for(StreamClosed)
            assert (closed.sent, closed.received) == (len(data), len(data))


async def test_the_first_bytes_may_ride_with_the_request() -> None:
    with trio.fail_after(SECONDS):
        async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:
            world.relay.seen = []
            stream = await tunnel.connect("localhost", port, b"early")
            assert await receive_exactly(stream, 5) == b"early"
            # One flight up brought both the request and what it is about.
            assert world.server.diary.told(SessionUp)


async def test_names_are_the_servers_business(monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(SECONDS):
        async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:
            asked: list[str] = []
            getaddrinfo = socket.getaddrinfo

            def spy(host: str, *args: int, **kwargs: int) -> object:
                asked.append(host)
                return getaddrinfo("127.0.0.1", *args, **kwargs)

            monkeypatch.setattr(socket, "getaddrinfo", spy)
            stream = await tunnel.connect("known-to-the-server.example", port)
            await stream.send_eof()
            await read_all(stream)
            # Once, by the server; the client runs in the same process here.
            assert asked == ["known-to-the-server.example"]
            assert (await world.server.diary.wait_for(StreamClosed))[0].host == "known-to-the-server.example"


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ("127.0.0.1", DialFault.REFUSED),
        (FORBIDDEN, DialFault.NOT_ALLOWED),
        ("no-such-host.invalid", DialFault.RESOLUTION),
        ("no name", DialFault.RESOLUTION),
        ("fe80::1%eth0", DialFault.RESOLUTION),
    ],
)
async def test_why_a_destination_is_not_reached_is_known(host: str, fault: DialFault) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with trio.fail_after(SECONDS):
        async with open_tunnel_world() as world, world.open_tunnel() as tunnel:
            with pytest.raises(TunnelDialError) as caught:
                await tunnel.connect(host, port)
            assert caught.value.fault is fault
            assert "\n" not in str(caught.value)
            await eventually(lambda: tunnel.statistics().streams == 0)


async def test_a_limit_of_the_server_is_known() -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_destination() as port,
            open_tunnel_world(limits=Limits(streams=1)) as world,
            world.open_tunnel() as tunnel,
        ):
            await tunnel.connect("127.0.0.1", port)
            with pytest.raises(TunnelDialError, match="1 connections") as caught:
                await tunnel.connect("127.0.0.1", port)
            assert caught.value.fault is DialFault.LIMIT


async def test_what_is_asked_before_it_works_waits() -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_destination() as port,
            open_tunnel_world() as world,
            world.open_tunnel(ready=False) as tunnel,
        ):
            assert tunnel.state is TunnelState.STARTING
            await tunnel.wait_usable()
            stream = await tunnel.connect("127.0.0.1", port, b"patient")
            assert await receive_exactly(stream, 7) == b"patient"
            assert (tunnel.state, tunnel.reason) == (TunnelState.READY, "")
            assert tunnel.since <= trio.current_time()


async def test_a_tunnel_to_nowhere_is_down_after_a_while() -> None:
    with trio.fail_after(SECONDS):
        async with open_tunnel_world(patience=0.3) as world:
            world.relay.blackout()
            async with world.open_tunnel(ready=False) as tunnel:
                with pytest.raises(TunnelDialError) as waited:
                    await tunnel.connect("127.0.0.1", 80)
                assert waited.value.fault is DialFault.DOWN
                with pytest.raises(TunnelDialError), trio.fail_after(0.1):
                    await tunnel.connect("127.0.0.1", 80)
                with pytest.raises(TunnelDialError):
                    await tunnel.wait_ready()
                assert tunnel.state is TunnelState.DOWN


async def test_many_connections_at_once() -> None:
    count = 100
    with trio.fail_after(SECONDS):
        async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:

            async def use(number: int) -> None:
                stream = await tunnel.connect("127.0.0.1", port)
                data = b"%d," % number * 5000
                await stream.send_all(data)
                await stream.send_eof()
                assert await read_all(stream) == data
                await stream.aclose()

            async with trio.open_nursery() as nursery:
                for number in range(count):
                    nursery.start_soon(use, number)
            await world.server.diary.wait_for(StreamClosed, count)
            assert {closed.outcome for closed in world.server.diary.told(StreamClosed)} == {StreamOutcome.OK}
            await eventually(lambda: tunnel.statistics().streams == 0)


async def hang(_self: Destinations, _host: str, _port: int) -> socket.socket:
    await trio.sleep_forever()
    raise AssertionError


async def test_giving_up_leaves_nothing_at_either_end(
    virtual_time: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Destinations, "connect", hang)
    with trio.fail_after(SECONDS):
        async with open_tunnel_world() as world, world.open_tunnel() as tunnel:
            with trio.move_on_after(0.1) as scope:
                await tunnel.connect("127.0.0.1", 80, b"early")
            assert scope.cancelled_caught
            (closed,) = await world.server.diary.wait_for(StreamClosed)
            assert closed.outcome is StreamOutcome.RESET
            await eventually(lambda: tunnel.statistics().streams == 0)


@pytest.mark.parametrize(("early", "repeatable"), [(b"", False), (b"early", False), (b"early", True)])
async def test_a_request_whose_session_is_lost_is_made_again_where_that_is_safe(
    monkeypatch: pytest.MonkeyPatch, virtual_time: MockClock, early: bytes, repeatable: bool
) -> None:
    """Not where the destination may have got its first bytes already: it would get them twice."""
    with trio.fail_after(SECONDS):
        async with open_destination() as port, open_tunnel_world() as world, world.open_tunnel() as tunnel:

            async def connect() -> None:
                if early and not repeatable:
                    with pytest.raises(TunnelDialError, match="session was lost") as caught:
                        await tunnel.connect("127.0.0.1", port, early)
                    assert caught.value.fault is DialFault.DOWN
                    assert caught.value.uncertain
                else:
                    stream = await tunnel.connect("127.0.0.1", port, early, repeatable=repeatable)
                    await stream.send_eof()
                    assert await read_all(stream) == early

            async with trio.open_nursery() as nursery:
                with monkeypatch.context() as patch:
                    patch.setattr(Destinations, "connect", hang)
                    nursery.start_soon(connect)
                    await eventually(lambda: any(s.streams for s in world.server.handle.sessions()))
                    await world.server.kill()
                await world.server.start()


async def test_a_request_is_made_twice_at_most(
    monkeypatch: pytest.MonkeyPatch, virtual_time: MockClock
) -> None:
    monkeypatch.setattr(Destinations, "connect", hang)
    with trio.fail_after(SECONDS):
        async with (
            open_tunnel_world() as world,
            world.open_tunnel() as tunnel,
            trio.open_nursery() as nursery,
        ):

            async def connect() -> None:
                with pytest.raises(TunnelDialError, match="session was lost"):
                    await tunnel.connect("127.0.0.1", 80)

            nursery.start_soon(connect)
            for _ in range(2):
                await eventually(lambda: any(s.streams for s in world.server.handle.sessions()))
                await trio.sleep(2 * INITIATION_INTERVAL)
                await world.server.kill()
                await world.server.start()


async def test_leaving_the_block_closes_everything() -> None:
    """Streams break, associations are closed, the server is told; a socket left open would be a warning."""
    with trio.fail_after(SECONDS):
        async with open_destination() as port, open_tunnel_world() as world:
            async with world.open_tunnel() as tunnel:
                stream = await tunnel.connect("127.0.0.1", port)
                association = tunnel.open_udp()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            with pytest.raises(trio.ClosedResourceError):
                await association.receive()
            await world.server.diary.wait_for(StreamClosed)
            await eventually(lambda: not world.server.handle.sessions())
    gc.collect()


async def test_the_servers_reset_is_the_streams_end() -> None:
    async def break_off(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()

    with trio.fail_after(SECONDS):
        async with (
            open_destination(break_off) as port,
            open_tunnel_world() as world,
            world.open_tunnel() as tunnel,
        ):
            stream = await tunnel.connect("127.0.0.1", port, b"!")
            with pytest.raises(StreamResetError):
                await stream.receive_some()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_go_through_a_tunnel(host: str) -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_udp_echo(host) as (_, port),
            open_tunnel_world() as world,
            world.open_tunnel() as tunnel,
        ):
            association = tunnel.open_udp()
            for size in (0, 10, 1400, 9000):
                association.send(host, port, bytes(size))
                assert await association.receive() == (host, port, bytes(size))
            await association.aclose()


async def test_statistics_count_what_went_over_the_network() -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_destination(echo) as port,
            open_tunnel_world() as world,
            world.open_tunnel() as tunnel,
        ):
            stream = await tunnel.connect("127.0.0.1", port)
            association = tunnel.open_udp()
            association.send("127.0.0.1", 9, b"")
            await stream.send_all(bytes(100_000))
            await receive_exactly(stream, 100_000)
            await tunnel.probe()
            statistics = tunnel.statistics()
            assert 100_000 < statistics.sent < 150_000
            assert 100_000 < statistics.received < 150_000
            assert statistics.round_trip is not None
            assert 0 < statistics.round_trip < 1
            assert (statistics.streams, statistics.associations) == (1, 1)
            assert sum(statistics.rejections.values()) == 0


async def test_secrets_are_not_shown() -> None:
    settings = TunnelSettings(
        server=("192.0.2.1", 1), private_key=b"private" * 5, public_key=b"public", preshared_key=b"shared" * 6
    )

    assert "private" not in repr(settings)
    assert "sharedshared" not in repr(settings)


async def test_a_key_must_be_one() -> None:
    async with open_tunnel_world() as world:
        with pytest.raises(NoiseError):
            async with open_tunnel(attrs.evolve(world.client, public_key=bytes(32))):
                pass
        with pytest.raises(ValueError, match="32"):
            async with open_tunnel(attrs.evolve(world.client, private_key=os.urandom(5))):
                pass

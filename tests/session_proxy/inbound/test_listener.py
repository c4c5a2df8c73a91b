from __future__ import annotations

import errno
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from session_proxy.errors import ListenError
from session_proxy.events import ConnectionClosed, ConnectionOpened, Listening, Notice, ignore
from session_proxy.inbound import listener
from session_proxy.inbound.listener import Entrances, serve_front_door
from session_proxy.inbound.sockets import start_listening, take
from session_proxy.profile.model import Limits, ListenAddress
from tests.support.doors import Events, FakeDialer, Open, open_door
from tests.support.sockets import LOOPBACK, echo, open_server, read_exactly
from tunnel_relay.background import open_background


async def through(door: Open, port: int, host: str = "") -> trio.SocketStream:
    """Return a connection through *door* to *port* on loopback."""
    client = await trio.open_tcp_stream(host or door.addresses[0].host, door.port)
    await client.send_all(b"\x04\x01" + port.to_bytes(2, "big") + bytes((127, 0, 0, 1, 0)))
    assert (await read_exactly(client, 8))[1] == 90
    return client


@pytest.mark.parametrize("host", [LOOPBACK, "::1", "0.0.0.0"])
async def test_it_listens_where_it_should(host: str) -> None:
    async with open_server(echo) as port, open_door(hosts=(host,)) as door:
        async with await through(door, port, "" if host == "::1" else LOOPBACK) as client:
            await client.send_all(b"hello")
            assert await read_exactly(client, 5) == b"hello"
        closed = await door.events.closed()
        assert door.events.of(Listening) == [Listening(str(door.addresses[0]))]
        assert closed.client.startswith("[::1]:" if host == "::1" else f"{LOOPBACK}:")


async def test_it_listens_on_several_addresses() -> None:
    async with open_server(echo) as port, open_door(hosts=(LOOPBACK, "::1")) as door:
        for address in door.addresses:
            async with await trio.open_tcp_stream(address.host, address.port) as client:
                await client.send_all(b"\x04\x01" + port.to_bytes(2, "big") + bytes((127, 0, 0, 1, 0)))
                assert (await read_exactly(client, 8))[1] == 90


async def test_an_address_that_cannot_be_had_is_one_plain_error() -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        address = ListenAddress(*other.getsockname())
        serve = partial(serve_front_door, FakeDialer(), [address], auth=None, limits=Limits(), notify=ignore)
        with pytest.raises(ListenError):
            await serve(stop=trio.Event())


async def test_two_hundred_clients_at_once() -> None:
    async with open_server(echo) as port, open_door() as door:

        async def visit(number: int) -> None:
            message = b"%d" % number * 1000
            async with await through(door, port) as client:
                await client.send_all(message)
                assert await read_exactly(client, len(message)) == message

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(visit, number)
        await door.events.closed(200)
        assert {closed.outcome for closed in door.events.of(ConnectionClosed)} == {"ok"}


async def test_too_many_clients_are_told_at_once() -> None:
    async with open_server(echo) as port, open_door(limits=Limits(connections=2)) as door:
        first, second = await through(door, port), await through(door, port)
        third = await door.connect()
        await third.send_all(b"\x05\x01\x00")
        with pytest.raises(trio.BrokenResourceError):
            await third.receive_some()
        closed = await door.events.closed()
        assert (closed.outcome, "limits.connections" in closed.detail) == ("limit", True)
        # What counts open connections hears of it as of any other.
        assert door.events.told[-2:] == [ConnectionOpened(closed.id, closed.client), closed]
        await first.aclose()
        await door.events.closed(2)
        async with await through(door, port):
            await second.aclose()
        await third.aclose()


async def test_stopping_lets_connections_finish() -> None:
    async with open_server(echo) as port, open_door(limits=Limits(drain=30)) as door:
        client = await through(door, port)
        door.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(OSError, match="all attempts to connect"):
            await door.connect()
        await client.send_all(b"still here")
        assert await read_exactly(client, 10) == b"still here"
        assert not door.done.is_set()
        await client.aclose()
        with trio.fail_after(5):
            await door.done.wait()
        assert (await door.events.closed()).outcome == "ok"


async def test_what_does_not_finish_in_time_is_cut_off() -> None:
    async with open_server(echo) as port, open_door(limits=Limits(drain=0.1)) as door:
        async with await through(door, port) as client:
            door.stop.set()
            with trio.fail_after(5):
                await door.done.wait()
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        closed = await door.events.closed()
        assert closed.outcome == "drained"


async def test_cancelling_closes_everything() -> None:
    async with open_server(echo) as port:
        async with open_door() as door:
            client = await through(door, port)
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        await client.aclose()
    assert door.events.of(ConnectionClosed)[0].outcome == "drained"


@pytest.mark.parametrize(("number", "notices"), [(errno.EMFILE, 1), (errno.ECONNABORTED, 0)])
async def test_a_failed_accept_is_survived(
    number: int, notices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [number]
    really_accept = socket.socket.accept

    def accept(sock: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
        if failures and sock.gettimeout() == 0:
            raise OSError(failures.pop(), "failed")
        return really_accept(sock)

    monkeypatch.setattr(listener, "BREATHER", 0.001)
    async with open_server(echo) as port, open_door() as door:
        monkeypatch.setattr(socket.socket, "accept", accept)
        async with await through(door, port):
            pass
        assert len(door.events.of(Notice)) == notices


async def test_a_broken_listener_is_not_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(_sock: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
        raise OSError(errno.EINVAL, "not listening")

    async def serve() -> None:
        async with open_door() as door:
            monkeypatch.setattr(socket.socket, "accept", accept)
            async with await door.connect() as client:
                await client.send_all(b"x")
                await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await serve()
    assert caught.group_contains(OSError, match="not listening")


@asynccontextmanager
async def open_entrances() -> AsyncGenerator[tuple[Entrances, Events]]:
    """Serve a front door for the block, and yield what may change its entrances."""
    opened: list[Entrances] = []
    events = Events()
    serve = partial(
        serve_front_door,
        FakeDialer(),
        [ListenAddress(LOOPBACK, 0)],
        auth=None,
        limits=Limits(),
        notify=events,
        stop=trio.Event(),
        on_open=opened.append,
    )
    async with open_background() as nursery:
        await nursery.start(serve)
        yield opened[0], events


async def connect(port: int, address: ListenAddress) -> trio.SocketStream:
    """Return a connection to *port* on loopback through the front door at *address*."""
    client = await trio.open_tcp_stream(address.host, address.port)
    await client.send_all(b"\x04\x01" + port.to_bytes(2, "big") + bytes((127, 0, 0, 1, 0)))
    assert (await read_exactly(client, 8))[1] == 90
    return client


async def test_an_entrance_may_move_while_clients_are_served() -> None:
    async with open_server(echo) as port, open_entrances() as (entrances, events):
        [old] = entrances.bound
        async with await connect(port, old) as client:
            [taken] = await take([ListenAddress("localhost", 0)])
            start_listening(taken.sockets)
            entrances.open(taken)
            entrances.close(ListenAddress(LOOPBACK, 0))

            new = entrances.bound
            assert {address.port for address in new} == {new[0].port} != {old.port}
            assert events.of(Listening)[1:] == [Listening(str(address)) for address in new]
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream(old.host, old.port)
            for address in new:
                await (await connect(port, address)).aclose()
            await client.send_all(b"still here")
            assert await read_exactly(client, 10) == b"still here"


async def test_who_waits_at_an_entrance_that_closes_is_served() -> None:
    """The kernel has accepted them already; a reset would tell them otherwise."""
    async with open_server(echo) as port, open_entrances() as (entrances, _):
        [old] = entrances.bound
        with socket.create_connection((old.host, old.port)) as waiting:
            waiting.sendall(b"\x04\x01" + port.to_bytes(2, "big") + bytes((127, 0, 0, 1, 0)))
            # Nothing has run since that could have accepted it.
            entrances.close(ListenAddress(LOOPBACK, 0))
            assert entrances.bound == []
            client = trio.SocketStream(trio.socket.from_stdlib_socket(waiting))
            assert (await read_exactly(client, 8))[1] == 90

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from session_proxy.errors import ListenError
from session_proxy.observability.http import HttpAnswer, HttpRequest, HttpRoutes
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision.admin_port import AdminPort
from tunnel_relay.background import open_background

ANY = ListenAddress("127.0.0.1", 0)


def pages() -> HttpRoutes:
    async def page(_request: HttpRequest) -> HttpAnswer:
        return HttpAnswer.text("here")

    return {("GET", "/"): page}


@asynccontextmanager
async def open_port() -> AsyncGenerator[AdminPort]:
    with trio.fail_after(10):
        async with open_background() as nursery:
            yield AdminPort(nursery, pages)


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


async def answers(address: str) -> bool:
    """Return whether the pages are there."""
    try:
        stream = await trio.open_tcp_stream(*split(address))
    except OSError:
        return False
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        return b"here" in b"".join([chunk async for chunk in stream])


async def test_there_may_be_none() -> None:
    async with open_port() as port:
        await port.open(None)
        assert (port.address, port.bound) == (None, ())


async def test_it_moves() -> None:
    async with open_port() as port:
        await port.open(ANY)
        [old] = port.bound
        assert await answers(old)

        async with port.prepare(ListenAddress("localhost", 0)) as move:
            assert port.bound == (old,)
            move()
        assert old not in port.bound
        assert all([await answers(address) for address in port.bound])
        assert not await answers(old)

        async with port.prepare(None) as move:
            move()
        assert port.bound == ()


async def test_it_stays_where_it_is_to_be_already() -> None:
    async with open_port() as port:
        await port.open(ANY)
        before = port.bound
        async with port.prepare(ANY) as move:
            move()
        assert port.bound == before
        assert await answers(before[0])


async def test_a_move_that_is_not_made_leaves_it_where_it_is() -> None:
    async with open_port() as port:
        await port.open(ANY)
        [old] = port.bound
        async with port.prepare(ListenAddress("localhost", 0)):
            pass
        assert port.bound == (old,)
        assert await answers(old)


async def test_an_address_that_is_taken_is_told() -> None:
    async with open_port() as port, open_port() as other:
        await port.open(ANY)
        with pytest.raises(ListenError, match="the port is in use"):
            await other.open(ListenAddress(*split(port.bound[0])))
        assert other.bound == ()

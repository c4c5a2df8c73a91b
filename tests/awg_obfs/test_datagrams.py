from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from awg_obfs.background import open_background
from awg_obfs.datagrams import MOST_UNREAD, MOST_UNSENT, REFUSED_PAUSE, Associations, TunnelAssociation
from awg_obfs.protocol.datagram_wire import Datagram, Whole, decode_body, decode_frame, encode_frames
from awg_obfs.protocol.tunnel_wire import AssociateRequest, Reply, ReplyCode, ResetCode, encode_address
from awg_obfs.quic.driver import QuicConnection
from awg_obfs.quic.stream import QuicStream
from tests.support.quic_link import Couple, open_couple
from tests.support.tunnel_ends import receive_exactly

REQUEST = AssociateRequest().encode()
SUCCEEDED = Reply(ReplyCode.SUCCEEDED).encode()
FAR = ("192.0.2.7", 53)


@attrs.define(eq=False)
class Client:
    """An association, and the connections that it gets from its tunnel, one after the other."""

    association: TunnelAssociation = attrs.field(factory=TunnelAssociation)
    associations: Associations = attrs.field(factory=Associations)
    connection: QuicConnection | None = None
    asked: int = 0
    _given: trio.Event = attrs.field(factory=trio.Event)

    def give(self, connection: QuicConnection) -> None:
        self.connection = connection
        self._given.set()

    def take_away(self) -> None:
        self.connection, self._given = None, trio.Event()

    async def wait_connection(self) -> QuicConnection:
        await self._given.wait()
        assert self.connection is not None
        self.asked += 1
        return self.connection


@asynccontextmanager
async def open_client() -> AsyncGenerator[Client]:
    async with open_background() as nursery:
        client = Client()
        nursery.start_soon(client.association.run, client.wait_connection, client.associations)
        yield client
        client.association.close()


async def agree(couple: Couple, reply: bytes = SUCCEEDED) -> QuicStream:
    """Be a server that answers the next request for an association."""
    stream = await couple.server.accept_stream()
    assert await receive_exactly(stream, len(REQUEST)) == REQUEST
    await stream.send_all(reply)
    return stream


async def next_datagram(couple: Couple) -> Datagram:
    held = decode_frame(await couple.server.receive_datagram())
    assert isinstance(held, Whole)
    return decode_body(held.body)


async def test_the_server_is_asked_with_the_first_datagram(autojump_clock: MockClock) -> None:
    """What is sent before there is a connection, or an answer, waits."""
    async with open_couple() as couple, open_client() as client:
        await wait_all_tasks_blocked()
        assert client.asked == 0
        client.association.send(*FAR, b"one")
        await wait_all_tasks_blocked()
        client.association.send(*FAR, b"two")
        client.give(couple.client)
        await agree(couple)
        assert await next_datagram(couple) == Datagram(*FAR, b"one")
        assert await next_datagram(couple) == Datagram(*FAR, b"two")
        client.association.send("name.example", 1, b"three")
        assert await next_datagram(couple) == Datagram("name.example", 1, b"three")
        assert client.asked == 1


async def test_of_many_that_wait_the_oldest_are_lost(autojump_clock: MockClock) -> None:
    async with open_couple() as couple, open_client() as client:
        for number in range(MOST_UNSENT + 1):
            client.association.send(*FAR, b"%d" % number)
        client.give(couple.client)
        await agree(couple)
        assert (await next_datagram(couple)).payload == b"1"


async def test_what_comes_is_read_in_order(autojump_clock: MockClock) -> None:
    """Whole ones, ones in pieces; what is malformed is dropped."""
    address = encode_address(*FAR)
    async with open_client() as client:

        async def read() -> None:
            assert await client.association.receive() == (*FAR, b"whole")
            assert await client.association.receive() == (*FAR, bytes(5000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            client.association.take(Whole(0, b"\xff"), 0.0)
            for payload in (b"whole", bytes(5000)):
                for frame in encode_frames(0, address, payload, 1000, 1):
                    client.association.take(decode_frame(frame), 0.0)


async def test_a_server_that_refused_is_not_asked_without_need(autojump_clock: MockClock) -> None:
    async with open_couple() as couple, open_client() as client:
        client.give(couple.client)
        client.association.send(*FAR, b"lost")
        await (await agree(couple, Reply(ReplyCode.LIMIT, "no more").encode())).aclose()
        await trio.sleep(10 * REFUSED_PAUSE)
        assert client.asked == 1


async def test_of_many_that_nobody_reads_the_oldest_are_lost() -> None:
    async with open_client() as client:
        for number in range(MOST_UNREAD + 1):
            (frame,) = encode_frames(0, encode_address(*FAR), b"%d" % number, 1000, number)
            client.association.take(decode_frame(frame), 0.0)
        assert (await client.association.receive())[2] == b"1"


async def test_a_server_that_refuses_is_asked_again_later(autojump_clock: MockClock) -> None:
    """Not at once, and not with what is old by then."""
    async with open_couple() as couple, open_client() as client:
        client.give(couple.client)
        client.association.send(*FAR, b"lost")
        refused = trio.current_time()
        await (await agree(couple, Reply(ReplyCode.LIMIT, "no more").encode())).aclose()
        await trio.sleep(REFUSED_PAUSE / 2)
        client.association.send(*FAR, b"later")
        await agree(couple)
        assert trio.current_time() - refused >= REFUSED_PAUSE
        assert (await next_datagram(couple)).payload == b"later"


@pytest.mark.parametrize("reset", [False, True])
async def test_what_the_server_ends_is_asked_for_again_when_wanted(
    autojump_clock: MockClock, reset: bool
) -> None:
    async with open_couple() as couple, open_client() as client:
        client.give(couple.client)
        client.association.send(*FAR, b"first")
        stream = await agree(couple)
        await next_datagram(couple)
        assert list(client.associations.values()) == [client.association]
        if reset:
            stream.reset(ResetCode.IDLE)
        else:
            stream.close()
        await trio.sleep(1)
        assert not client.associations
        assert client.asked == 1
        client.association.send(*FAR, b"second")
        await agree(couple)
        assert (await next_datagram(couple)).payload == b"second"


async def test_it_outlives_its_connection(autojump_clock: MockClock) -> None:
    async with open_couple() as first, open_couple() as second, open_client() as client:
        client.give(first.client)
        client.association.send(*FAR, b"first")
        await agree(first)
        await next_datagram(first)
        client.take_away()
        first.client.close()
        # Before anybody has noticed: it is lost, and asks for another connection.
        client.association.send(*FAR, b"lost")
        client.give(second.client)
        stream = await agree(second)
        client.association.send(*FAR, b"second")
        assert (await next_datagram(second)).payload == b"second"
        await stream.aclose()


async def test_a_connection_that_ends_before_it_answers_is_given_up(autojump_clock: MockClock) -> None:
    async with open_couple() as first, open_couple() as second, open_client() as client:
        client.give(first.client)
        client.association.send(*FAR, b"patient")
        await first.server.accept_stream()
        client.take_away()
        first.client.close()
        client.give(second.client)
        await agree(second)
        assert (await next_datagram(second)).payload == b"patient"


async def test_a_number_may_belong_to_another_by_now(autojump_clock: MockClock) -> None:
    """Connections number from 0; the end of an old one does not take the new one's frames away."""
    async with open_couple() as couple, open_client() as client:
        client.give(couple.client)
        client.association.send(*FAR, b"first")
        stream = await agree(couple)
        await next_datagram(couple)
        (number,) = client.associations
        another = client.associations[number] = TunnelAssociation()
        stream.close()
        await trio.sleep(1)
        assert client.associations == {number: another}


async def test_closing_ends_it_at_both_ends(autojump_clock: MockClock) -> None:
    async with open_couple() as couple, open_client() as client:
        client.give(couple.client)
        client.association.send(*FAR, b"hello")
        stream = await agree(couple)

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await client.association.receive()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            await client.association.aclose()
        with pytest.raises(trio.ClosedResourceError):
            client.association.send(*FAR, b"too late")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert not client.associations


async def test_there_must_be_such_a_host() -> None:
    async with open_client() as client:
        with pytest.raises(ValueError, match=r"\S"):
            client.association.send("no name", 1, b"")

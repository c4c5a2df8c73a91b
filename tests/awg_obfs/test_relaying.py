from __future__ import annotations

import random
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from awg_obfs.events import StreamOutcome
from awg_obfs.protocol.tunnel_wire import ResetCode
from awg_obfs.quic.errors import StreamResetError
from awg_obfs.quic.settings import QuicSettings
from awg_obfs.quic.stream import QuicStream
from awg_obfs.relaying import Relay
from tests.support.quic_link import Couple
from tests.support.tunnel_ends import open_stream_pair, receive_exactly, tcp_pair
from tests.support.tunnels import read_all

SECONDS = 10


@attrs.define(eq=False)
class Relayed:
    """A relay that runs: the client's stream on one side, and the destination on the other."""

    client: QuicStream
    destination: trio.SocketStream
    relay: Relay
    couple: Couple
    over: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, greeting: bytes, early: bytes) -> None:
        await self.relay.run(greeting, early)
        self.over.set()


@asynccontextmanager
async def open_relay(
    greeting: bytes = b"", early: bytes = b"", settings: QuicSettings | None = None
) -> AsyncGenerator[Relayed]:
    with trio.fail_after(SECONDS), tcp_pair() as (near, far):
        async with open_stream_pair(settings=settings) as pair, trio.open_nursery() as nursery:
            destination = trio.SocketStream(trio.socket.from_stdlib_socket(far))
            relayed = Relayed(pair.client, destination, Relay(pair.server, near), pair.couple)
            nursery.start_soon(relayed.run, greeting, early)
            yield relayed
            nursery.cancel_scope.cancel()


async def test_bytes_go_both_ways_until_both_have_ended() -> None:
    """Each direction ends on its own: what one side sends after the other's end still arrives."""
    async with open_relay(b"hello ", b"early ") as relayed:
        await relayed.client.send_all(b"request")
        await relayed.client.send_eof()
        assert await read_all(relayed.destination) == b"early request"
        await relayed.destination.send_all(b"answer")
        assert await receive_exactly(relayed.client, 12) == b"hello answer"
        assert not relayed.over.is_set()
        await relayed.destination.send_eof()
        assert await relayed.client.receive_some() == b""
        await relayed.over.wait()
        relay = relayed.relay
        assert (relay.sent, relay.received, relay.outcome) == (13, 6, StreamOutcome.OK)
        assert relay.progress() == 19
        assert relay.sock.fileno() == -1


async def test_the_destination_may_end_first() -> None:
    async with open_relay() as relayed:
        await relayed.destination.send_all(b"banner")
        await relayed.destination.send_eof()
        assert await read_all(relayed.client) == b"banner"
        await relayed.client.send_all(b"thanks")
        await relayed.client.send_eof()
        assert await read_all(relayed.destination) == b"thanks"
        await relayed.over.wait()


async def test_much_goes_both_ways_at_once() -> None:
    """More than all buffers on the way hold; both sides are held up, and nothing is lost."""
    data = random.Random(1).randbytes(6_000_000)
    received: list[bytes] = []

    async def send(stream: trio.abc.HalfCloseableStream) -> None:
        await stream.send_all(data)
        await stream.send_eof()

    async def receive(stream: trio.abc.ReceiveStream) -> None:
        received.append(await read_all(stream))

    async with open_relay() as relayed:
        async with trio.open_nursery() as nursery:
            for stream in (relayed.client, relayed.destination):
                nursery.start_soon(send, stream)
                nursery.start_soon(receive, stream)
        assert received == [data, data]


async def test_a_destination_that_does_not_read_holds_the_client_up(autojump_clock: MockClock) -> None:
    settings = QuicSettings(stream_window=100_000, connection_window=200_000, send_buffer=50_000)
    sent = 0
    async with open_relay(settings=settings) as relayed:
        with trio.move_on_after(SECONDS / 2):
            while True:
                await relayed.client.send_all(bytes(100_000))
                sent += 100_000
        # The rest is what the kernel holds.
        assert 0 < relayed.relay.sent <= sent <= relayed.relay.sent + 500_000


async def test_a_client_that_gives_up_is_a_reset_for_the_destination() -> None:
    async with open_relay() as relayed:
        relayed.client.reset(ResetCode.CANCELLED)
        with pytest.raises(trio.BrokenResourceError):
            await relayed.destination.receive_some()
        await relayed.over.wait()
        assert relayed.relay.outcome is StreamOutcome.RESET


async def test_a_destination_that_breaks_is_a_reset_for_the_client() -> None:
    async with open_relay() as relayed:
        relayed.destination.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        relayed.destination.socket.close()
        with pytest.raises(StreamResetError) as caught:
            await relayed.client.receive_some()
        assert caught.value.code == ResetCode.BROKEN
        await relayed.over.wait()
        assert relayed.relay.outcome is StreamOutcome.RESET


async def test_a_client_that_closes_has_its_last_words_delivered() -> None:
    """Closing means that nothing more is read; what was sent before counts."""
    async with open_relay() as relayed:
        await relayed.client.send_all(b"last words")
        await relayed.client.aclose()
        assert await read_all(relayed.destination) == b"last words"
        await relayed.over.wait()
        assert relayed.relay.outcome is StreamOutcome.OK


async def test_what_is_idle_is_reset_on_both_sides() -> None:
    async with open_relay() as relayed:
        await wait_all_tasks_blocked(0.01)
        relayed.relay.expire()
        with pytest.raises(StreamResetError) as caught:
            await relayed.client.receive_some()
        assert caught.value.code == ResetCode.IDLE
        with pytest.raises(trio.BrokenResourceError):
            await relayed.destination.receive_some()
        await relayed.over.wait()
        assert relayed.relay.outcome is StreamOutcome.IDLE


async def test_the_end_of_the_connection_ends_the_relay() -> None:
    async with open_relay() as relayed:
        relayed.couple.server.close()
        with pytest.raises(trio.BrokenResourceError):
            await relayed.destination.receive_some()
        await relayed.over.wait()
        assert relayed.relay.outcome is StreamOutcome.RESET


async def test_cancelling_leaves_nothing_open(virtual_time: MockClock) -> None:
    with tcp_pair() as (near, _):
        async with open_stream_pair() as pair:
            relay = Relay(pair.server, near)
            with trio.move_on_after(0.02):
                await relay.run()
            assert near.fileno() == -1
            assert relay.outcome is StreamOutcome.RESET
            with pytest.raises(StreamResetError):
                await pair.client.receive_some()

"""qh3 behind the interface of engines."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

pytest.importorskip("qh3")

from awg_obfs.quic.engine import (
    DatagramReceived,
    Established,
    PingAcknowledged,
    StopSending,
    StreamReset,
    Terminated,
)
from awg_obfs.quic.errors import Cause, ConnectionFailure, ConnectionLostError
from awg_obfs.quic.qh3_engine import Qh3Engine
from awg_obfs.quic.settings import EngineKind, QuicSettings
from awg_obfs.quic.stream import QuicStream
from tests.support.quic_engines import DATAGRAM, EnginePair, content, has_ended
from tests.support.quic_link import CERTIFICATE, Weather, open_couple
from tests.support.quic_streams import echo, read_all, send_whole


def connected(settings: QuicSettings | None = None) -> EnginePair:
    settings = settings or QuicSettings()
    pair = EnginePair(Qh3Engine(settings, DATAGRAM, None), Qh3Engine(settings, DATAGRAM, CERTIFICATE))
    pair.connect()
    return pair


def test_events_come_in_the_driver_s_words() -> None:
    pair = connected()
    assert pair.at_client[0] == pair.at_server[0] == Established()
    stream_id = pair.client.open_stream()
    pair.client.send_stream(stream_id, b"x" * 5000, end=True)
    assert pair.client.unsent(stream_id) == 5000
    pair.run(0.1)
    assert content(pair.at_server, stream_id) == b"x" * 5000
    assert has_ended(pair.at_server, stream_id)
    pair.server.consumed(stream_id, 5000, 5000)
    pair.server.reset_stream(stream_id, 5)
    pair.run(0.1)
    assert StreamReset(stream_id, 5) in pair.at_client
    other = pair.client.open_stream()
    pair.client.send_stream(other, b"x", end=False)
    pair.client.stop_stream(other, 6)
    pair.run(0.1)
    assert StopSending(other, 6) in pair.at_server
    pair.client.stop_stream(stream_id, 6)
    assert pair.client.wants_pauses


def test_datagrams_beyond_the_congestion_window_wait_for_their_turn() -> None:
    pair = connected(QuicSettings(datagrams=60))
    frame = bytes(1200)
    assert [pair.client.send_datagram(frame) for _ in range(61)] == [True] * 60 + [False]
    first = pair.client.datagrams_to_send(pair.now)
    assert 1 < len(first) < 20
    pair.server.receive(first, pair.now)
    pair.run(0.2)
    assert pair.at_server.count(DatagramReceived(frame)) == 60


def test_a_server_waits_for_what_begins_a_connection() -> None:
    server = Qh3Engine(QuicSettings(), DATAGRAM, CERTIFICATE)
    server.receive([b"", b"\x41" + bytes(40), b"\xe3" + bytes(40)], 0.0)
    assert server.datagrams_to_send(0.0) == []
    assert server.next_timer() is None
    assert server.take_events() == []
    assert server.statistics().round_trip == 0
    server.close(0, "")


def test_the_end_is_told_to_the_peer() -> None:
    pair = connected()
    pair.client.send_datagram(b"too late")
    pair.client.close(9, "bye")
    pair.run(0.01)
    assert pair.at_server[-1] == Terminated(ConnectionFailure(Cause.PEER_CLOSED, 9, "bye"))


@pytest.mark.parametrize("milliseconds", [1, 2, 5, 200])
def test_a_dead_path_is_probed_less_and_less(milliseconds: int) -> None:
    """Whenever it died, and be it between the handshake and its confirmation."""
    settings = QuicSettings()
    pair = EnginePair(Qh3Engine(settings, DATAGRAM, None), Qh3Engine(settings, DATAGRAM, CERTIFICATE))
    pair.client.connect(pair.now)
    pair.run(milliseconds / 1000)
    pair.loses = lambda _datagram: True
    pair.up.clear()
    pair.client.send_ping(1)
    pair.run(5)
    assert 4 < len(pair.up) < 40
    pair.loses = lambda _datagram: False
    pair.run(5)
    assert Established() in pair.at_server
    pair.client.send_ping(2)
    pair.run(0.1)
    assert PingAcknowledged(2) in pair.at_client


def test_a_pause_of_all_is_not_taken_for_a_tie() -> None:
    """What was sent before it is acknowledged after it, piece by piece: the round trip is its length, for a while."""
    settings = QuicSettings()
    pair = EnginePair(Qh3Engine(settings, DATAGRAM, None), Qh3Engine(settings, DATAGRAM, CERTIFICATE))
    pair.connect()
    data = random.Random(1).randbytes(500_000)
    stream = pair.client.open_stream()
    pair.client.send_stream(stream, data, end=True)
    on_their_way = pair.client.datagrams_to_send(pair.now)
    pair.now += 30
    for datagram in on_their_way:
        pair.server.receive([datagram], pair.now)
        pair.now += 0.002
        pair.server.handle_timer(pair.now)
        answers = pair.server.datagrams_to_send(pair.now)
        if answers:
            pair.client.receive(answers, pair.now)
    pair.at_server += pair.server.take_events()
    # qh3 paces what it sends by that round trip, until it is forgotten.
    pair.run(20)
    assert content(pair.at_server, stream) == data
    assert not [event for event in pair.at_client + pair.at_server if isinstance(event, Terminated)]


@pytest.mark.parametrize("seed", range(4))
async def test_two_that_tie_each_other_up_give_up(autojump_clock: MockClock, seed: int) -> None:
    """Much to send both ways, and losses: it gets through, or the connection ends, and the next one is aioquic's.

    The word of its end may get lost, too: an end that hears nothing any more is the session's matter.
    """

    def lossy() -> Weather:
        return Weather(loss=0.03, delay=0.0005, rate=2e6, queue=200_000, reordered=0.05)

    data = random.Random(seed).randbytes(300_000)
    async with (
        open_couple((EngineKind.QH3, EngineKind.QH3), weather=lossy, seed=seed) as couple,
        trio.open_nursery() as nursery,
    ):

        async def accept() -> None:
            while True:
                nursery.start_soon(attempt, echo, await couple.server.accept_stream())

        async def attempt(work: Callable[..., Awaitable[None]], *args: object) -> None:
            with suppress(ConnectionLostError):
                await work(*args)

        async def expect(stream: QuicStream) -> None:
            assert await read_all(stream) == data

        nursery.start_soon(attempt, accept)
        with trio.move_on_after(60) as patience:
            async with trio.open_nursery() as exchanges:
                for _ in range(20):
                    stream = couple.client.open_stream()
                    exchanges.start_soon(attempt, send_whole, stream, data)
                    exchanges.start_soon(attempt, expect, stream)
        failures = [end.failure for end in (couple.client, couple.server) if end.failure is not None]
        assert failures or not patience.cancelled_caught
        assert all(failure.cause in (Cause.PROTOCOL, Cause.PEER_CLOSED) for failure in failures)
        nursery.cancel_scope.cancel()

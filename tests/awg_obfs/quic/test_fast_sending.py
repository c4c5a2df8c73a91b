"""The fast sending side: fair, within windows and pace, and not for anything unusual."""

from __future__ import annotations

import pytest

from awg_obfs.quic.settings import QuicSettings
from tests.support.quic_engines import (
    DATAGRAM,
    EnginePair,
    aioquic_client,
    aioquic_server,
    content,
    has_ended,
)


@pytest.fixture
def pair() -> EnginePair:
    settings = QuicSettings(stream_window=1 << 20, connection_window=4 << 20)
    made = EnginePair(aioquic_client(settings=settings), aioquic_server(settings=settings))
    made.connect()
    return made


def test_bulk_fills_its_datagrams(pair: EnginePair) -> None:
    stream_id = pair.client.open_stream()
    pair.run(0.01)
    pair.up.clear()
    pair.client.send_stream(stream_id, bytes(500_000), end=False)
    pair.run(1)
    assert len(content(pair.at_server, stream_id)) == 500_000
    full = [datagram for datagram in pair.up if len(datagram) > DATAGRAM - 10]
    assert len(full) > 0.95 * 500_000 / DATAGRAM


def test_streams_take_turns(pair: EnginePair) -> None:
    """A small message does not wait until bulk has left."""
    bulk, small = pair.client.open_stream(), pair.client.open_stream()
    pair.client.send_stream(bulk, bytes(1_000_000), end=False)
    pair.client.send_stream(small, b"ping", end=False)
    pair.run(0.003)
    assert content(pair.at_server, small) == b"ping"
    assert len(content(pair.at_server, bulk)) < 1_000_000


def test_streams_get_equal_shares(pair: EnginePair) -> None:
    streams = [pair.client.open_stream() for _ in range(10)]
    for stream_id in streams:
        pair.client.send_stream(stream_id, bytes(300_000), end=False)
    while sum(len(content(pair.at_server, each)) for each in streams) < 1_000_000:
        pair.run(0.001)
    shares = [len(content(pair.at_server, each)) for each in streams]
    assert min(shares) > 0.5 * max(shares)


def test_no_more_is_in_flight_than_the_congestion_window(pair: EnginePair) -> None:
    stream_id = pair.client.open_stream()
    pair.run(0.01)
    pair.client.send_stream(stream_id, bytes(1_000_000), end=False)
    pair.loses = lambda _datagram: True
    pair.up.clear()
    pair.run(0.02)
    assert sum(map(len, pair.up)) <= pair.client.statistics().congestion_window + 3 * DATAGRAM


def test_an_end_may_travel_alone(pair: EnginePair) -> None:
    stream_id = pair.client.open_stream()
    pair.client.send_stream(stream_id, b"data", end=False)
    pair.run(0.01)
    pair.client.send_stream(stream_id, b"", end=True)
    pair.run(0.01)
    assert has_ended(pair.at_server, stream_id)


def test_nothing_is_sent_where_there_is_nothing_to_say(pair: EnginePair) -> None:
    pair.run(0.1)
    pair.up.clear()
    pair.run(0.5)
    assert pair.up == []

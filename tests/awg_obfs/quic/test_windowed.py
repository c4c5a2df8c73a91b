"""Windows that the reader opens."""

from __future__ import annotations

import pytest

from awg_obfs.quic.fast_connection import FastConnection
from awg_obfs.quic.settings import QuicSettings
from awg_obfs.quic.windowed import BURST_SECONDS, BurstPacer, WindowedConnection
from tests.support.quic_engines import EnginePair, aioquic_client, aioquic_server, content

CLASSES = (WindowedConnection, FastConnection)
SETTINGS = QuicSettings(stream_window=10_000, connection_window=25_000)


@pytest.fixture(params=CLASSES)
def pair(request: pytest.FixtureRequest) -> EnginePair:
    made = EnginePair(aioquic_client(request.param, SETTINGS), aioquic_server(request.param, SETTINGS))
    made.connect()
    return made


def test_a_stream_that_nobody_reads_stops_at_its_window(pair: EnginePair) -> None:
    stream_id = pair.client.open_stream()
    pair.client.send_stream(stream_id, bytes(50_000), end=False)
    pair.run(1)
    assert len(content(pair.at_server, stream_id)) == SETTINGS.stream_window
    pair.server.consumed(stream_id, 4_000, 4_000)
    pair.run(0.1)
    assert len(content(pair.at_server, stream_id)) == SETTINGS.stream_window + 4_000


def test_all_streams_together_stop_at_the_connection_s(pair: EnginePair) -> None:
    streams = [pair.client.open_stream() for _ in range(5)]
    for stream_id in streams:
        pair.client.send_stream(stream_id, bytes(50_000), end=False)
    pair.run(1)
    assert sum(len(content(pair.at_server, each)) for each in streams) == SETTINGS.connection_window


def test_what_a_reset_stream_has_used_is_given_back(pair: EnginePair) -> None:
    """Were it not, a few resets would shut the connection's window for good."""
    for _ in range(10):
        stream_id = pair.client.open_stream()
        pair.client.send_stream(stream_id, bytes(9_000), end=False)
        pair.loses = lambda datagram: len(datagram) > 1000
        pair.run(0.002)
        pair.loses = lambda _datagram: False
        pair.client.reset_stream(stream_id, 1)
        pair.run(0.2)
        got = len(content(pair.at_server, stream_id))
        pair.server.consumed(stream_id, got, got)
        pair.server.reset_stream(stream_id, 1)
        pair.run(0.1)
    last = pair.client.open_stream()
    pair.client.send_stream(last, bytes(9_000), end=False)
    pair.run(0.2)
    assert len(content(pair.at_server, last)) == 9_000


def test_the_pacer_lets_a_burst_of_milliseconds_go() -> None:
    pacer = BurstPacer(max_datagram_size=1200)
    pacer.update_rate(congestion_window=20_000, smoothed_rtt=0.001)
    assert pacer.bucket_max >= BURST_SECONDS

"""aioquic behind the interface of engines."""

from __future__ import annotations

import pytest

from awg_obfs.quic.aioquic_engine import GRANULARITY
from awg_obfs.quic.engine import (
    DatagramReceived,
    Established,
    PingAcknowledged,
    StopSending,
    StreamReset,
    Terminated,
)
from awg_obfs.quic.errors import Cause, ConnectionFailure
from awg_obfs.quic.fast_connection import FastConnection
from awg_obfs.quic.settings import QuicSettings
from awg_obfs.quic.windowed import WindowedConnection
from tests.support.quic_engines import EnginePair, aioquic_client, aioquic_server, content, has_ended

CLASSES = (WindowedConnection, FastConnection)


def connected(kind: type[WindowedConnection], settings: QuicSettings | None = None) -> EnginePair:
    pair = EnginePair(aioquic_client(kind, settings), aioquic_server(kind, settings))
    pair.connect()
    return pair


@pytest.mark.parametrize("kind", CLASSES)
def test_events_come_in_the_driver_s_words(kind: type[WindowedConnection]) -> None:
    pair = connected(kind)
    assert Established() in pair.at_client
    assert Established() in pair.at_server
    stream_id = pair.client.open_stream()
    pair.client.send_stream(stream_id, b"x" * 5000, end=True)
    assert pair.client.unsent(stream_id) == 5000
    assert pair.client.send_datagram(b"datagram")
    pair.client.send_ping(7)
    pair.run(0.1)
    assert content(pair.at_server, stream_id) == b"x" * 5000
    assert has_ended(pair.at_server, stream_id)
    assert DatagramReceived(b"datagram") in pair.at_server
    assert PingAcknowledged(7) in pair.at_client
    assert pair.client.unsent(stream_id) == 0
    assert 0 < pair.client.statistics().round_trip < 0.01


@pytest.mark.parametrize("kind", CLASSES)
def test_giving_up_is_told_with_its_code(kind: type[WindowedConnection]) -> None:
    pair = connected(kind)
    stream_id = pair.client.open_stream()
    pair.client.send_stream(stream_id, b"x", end=False)
    pair.run(0.05)
    pair.client.reset_stream(stream_id, 5)
    pair.client.stop_stream(stream_id, 6)
    pair.client.send_stream(stream_id, b"nobody", end=True)
    pair.run(0.05)
    assert StreamReset(stream_id, 5) in pair.at_server
    assert StopSending(stream_id, 6) in pair.at_server
    pair.client.stop_stream(400, 6)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_end_is_told_at_once_at_both_sides(kind: type[WindowedConnection]) -> None:
    pair = connected(kind)
    pair.client.close(9, "bye")
    pair.run(0.01)
    assert pair.at_client[-1] == Terminated(ConnectionFailure(Cause.CLOSED, 9, "bye"))
    assert pair.at_server[-1] == Terminated(ConnectionFailure(Cause.PEER_CLOSED, 9, "bye"))


def test_a_server_waits_for_what_begins_a_connection() -> None:
    server = aioquic_server()
    server.receive([b"", b"\x41" + bytes(40), b"\xe3" + bytes(40)], 0.0)
    assert server.datagrams_to_send(0.0) == []
    assert server.next_timer() is None
    assert server.take_events() == []
    assert server.statistics().round_trip == 0
    server.close(0, "")


def test_datagrams_wait_up_to_a_limit() -> None:
    pair = connected(FastConnection, QuicSettings(datagrams=3))
    assert [pair.client.send_datagram(b"x") for _ in range(4)] == [True, True, True, False]


def test_timers_are_coarse() -> None:
    pair = connected(FastConnection)
    pair.loses = lambda _datagram: True
    pair.client.send_ping(1)
    pair.run(0.001)
    due = pair.client.next_timer()
    assert due is not None
    pair.client.handle_timer(due)
    following = pair.client.next_timer()
    assert following is not None
    assert following >= due + GRANULARITY

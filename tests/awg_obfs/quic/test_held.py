"""qh3's connection, held and told."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

pytest.importorskip("qh3")

from awg_obfs.quic.engine import EndInDoubt, Terminated
from awg_obfs.quic.errors import Cause
from awg_obfs.quic.held import with_parameter
from awg_obfs.quic.qh3_engine import Qh3Engine
from awg_obfs.quic.settings import MIB, QuicSettings
from tests.support.quic_engines import DATAGRAM, EnginePair, content
from tests.support.quic_link import CERTIFICATE

if TYPE_CHECKING:
    from qh3._hazmat import QuicConnectionCore


def connected(settings: QuicSettings | None = None) -> EnginePair:
    settings = settings or QuicSettings()
    pair = EnginePair(Qh3Engine(settings, DATAGRAM, None), Qh3Engine(settings, DATAGRAM, CERTIFICATE))
    pair.connect()
    return pair


def test_the_peer_stops_where_readers_are_far_behind() -> None:
    settings = QuicSettings(stream_window=MIB, connection_window=2 * MIB)
    pair = connected(settings)
    stream_id = pair.client.open_stream()
    pair.client.send_stream(stream_id, bytes(16 * MIB), end=True)
    pair.run(2)
    held = len(content(pair.at_server, stream_id))
    assert settings.connection_window <= held < 2 * settings.connection_window
    pair.run(1)
    assert len(content(pair.at_server, stream_id)) == held
    for _ in range(40):
        held = len(content(pair.at_server, stream_id))
        pair.server.consumed(stream_id, held, held)
        pair.at_server.clear()
        pair.run(0.1)
    assert pair.client.unsent(stream_id) == 0


def test_an_end_is_in_doubt_after_a_loss_and_told_once() -> None:
    pair = connected()
    stream_id = pair.client.open_stream()
    pair.client.send_stream(stream_id, b"12345", end=False)
    pair.loses = lambda _datagram: True
    pair.run(0.001)
    pair.client.send_stream(stream_id, b"", end=True)
    pair.run(0.002)
    pair.loses = lambda _datagram: False
    pair.run(1)
    assert [event for event in pair.at_client if isinstance(event, EndInDoubt)] == [EndInDoubt(stream_id, 5)]


def test_a_core_that_has_lost_track_ends_the_connection() -> None:
    """And not the program; the peer is told at once."""
    pair = connected()
    engine = pair.client
    assert isinstance(engine, Qh3Engine)
    quic = engine._connection
    core = quic.core
    assert core is not None

    class Confused:
        def __getattr__(self, name: str) -> object:
            return getattr(core, name)

        def poll_transmit(self, now: float) -> object:
            if core.state == "connected":
                raise ValueError("reserved stream is missing")
            return core.poll_transmit(now)

    quic._core = cast("QuicConnectionCore", Confused())
    last_words = engine.datagrams_to_send(pair.now)
    pair.server.receive(last_words, pair.now)
    told = pair.server.take_events()[-1]
    assert isinstance(told, Terminated)
    assert told.failure.cause is Cause.PEER_CLOSED
    ended = engine.take_events()[-1]
    assert isinstance(ended, Terminated)
    assert ended.failure.cause is Cause.PROTOCOL
    assert ended.failure.reason == "reserved stream is missing"


def test_a_transport_parameter_is_replaced_among_the_others() -> None:
    parameters = b"\x01\x02\x40\x10" + b"\x08\x01\x64" + b"\x40\x20\x01\x05"
    changed = with_parameter(parameters, 8, 300)
    assert changed == b"\x01\x02\x40\x10" + b"\x40\x20\x01\x05" + b"\x08\x04\x80\x00\x01\x2c"

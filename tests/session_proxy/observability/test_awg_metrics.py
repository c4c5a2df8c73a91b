from __future__ import annotations

from awg_obfs.events import (
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeFault,
    PeerMoved,
    Reconnecting,
    Rejection,
    SessionUp,
)
from awg_obfs.protocol.noise import Role
from session_proxy.events import AwgHappened
from session_proxy.observability.awg_metrics import AWG_CATALOGUE, count, read
from session_proxy.observability.metrics import Metrics
from session_proxy.outbound.awg_figures import AwgFigures, SessionFigures
from tests.support.awg_events import HERE, PEER, SESSION_EVENTS, THERE

FIGURES = AwgFigures(
    sessions=(
        SessionFigures(
            link="edge",
            up=True,
            streams=3,
            sent=10,
            received=20,
            round_trip=0.05,
            latency={0.5: 0.1, 0.99: 0.4},
        ),
        SessionFigures(link="home", up=False),
    ),
    rejections={Rejection.BAD_MAC1: 4, Rejection.OLD_TIMESTAMP: 1, Rejection.UNKNOWN_TYPE: 7},
)


def test_handshakes_are_counted_by_how_they_ended() -> None:
    events = [
        HandshakeCompleted(PEER, Role.INITIATOR, HERE),
        HandshakeFailed(PEER, HandshakeFault.NO_ANSWER),
        PeerMoved(PEER, HERE, THERE),
        SessionUp(PEER, HERE, 0.1),
        Reconnecting(PEER, "silence"),
    ]

    assert [sample for event in events for sample in count(AwgHappened("edge", event))] == [
        ("sproxy_awg_handshakes_total", ("edge", "ok"), 1),
        ("sproxy_awg_handshakes_total", ("edge", "no-answer"), 1),
        ("sproxy_awg_moves_total", ("edge",), 1),
        ("sproxy_awg_sessions_total", ("edge",), 1),
        ("sproxy_awg_reconnects_total", ("edge",), 1),
    ]


def test_what_is_read_and_what_is_counted_is_in_the_catalogue() -> None:
    known = {spec.name: len(spec.labels) for spec in AWG_CATALOGUE}
    samples = [sample for event, _ in SESSION_EVENTS for sample in count(AwgHappened("edge", event))]
    for name, labels, _ in [*samples, *read(FIGURES)]:
        assert known[name] == len(labels)


def test_what_ends_only_is_told_of_is_open_as_long_as_somebody_says_so() -> None:
    """An awg server hears of connections when they are over, so it is asked how many there are."""
    metrics = Metrics()
    metrics.watch(dict, is_ready=lambda: True, dropped=lambda: 0, streams=lambda: 3)

    assert b"sproxy_connections_open 3.0" in metrics.render()[0]


def test_prometheus_gets_the_figures_as_they_are() -> None:
    metrics = Metrics()
    metrics.watch(dict, is_ready=lambda: True, dropped=lambda: 0, figures=lambda: FIGURES)
    metrics(AwgHappened("edge", HandshakeCompleted(PEER, Role.INITIATOR, HERE)))

    metrics.render()
    text = metrics.render()[0].decode()

    for line in (
        'sproxy_awg_sessions{link="edge"} 1.0',
        'sproxy_awg_sessions{link="home"} 0.0',
        'sproxy_awg_streams{link="edge"} 3.0',
        'sproxy_awg_bytes_total{direction="received",link="edge"} 20.0',
        'sproxy_awg_round_trip_seconds{link="edge"} 0.05',
        'sproxy_awg_latency_seconds{link="edge",quantile="0.99"} 0.4',
        'sproxy_awg_auth_failures_total{reason="bad-mac1"} 4.0',
        'sproxy_awg_rejected_total{reason="unknown-type"} 7.0',
        'sproxy_awg_handshakes_total{link="edge",outcome="ok"} 1.0',
    ):
        assert line in text
    assert 'round_trip_seconds{link="home"}' not in text

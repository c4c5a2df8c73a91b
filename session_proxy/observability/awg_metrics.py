"""The metrics of AmneziaWG sessions: what is counted as it happens, and what is read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator

from awg_obfs.events import HandshakeCompleted, HandshakeFailed, PeerMoved, Reconnecting, Rejection, SessionUp
from session_proxy.events import AwgHappened
from session_proxy.observability.metric_spec import Labels, MetricSpec
from session_proxy.outbound.awg_figures import AwgFigures

AWG_CATALOGUE = (
    MetricSpec(
        "sproxy_awg_sessions",
        "gauge",
        "1 where the session is up: keys are agreed on and QUIC runs. The link is an upstream, or a server's peer.",
        ("link",),
    ),
    MetricSpec("sproxy_awg_streams", "gauge", "Connections that the session carries now.", ("link",)),
    MetricSpec(
        "sproxy_awg_handshakes_total",
        "counter",
        "Handshakes of AmneziaWG that ended: ok, or why not.",
        ("link", "outcome"),
    ),
    MetricSpec(
        "sproxy_awg_sessions_total",
        "counter",
        "Times that a session with a server's peer came up.",
        ("link",),
    ),
    MetricSpec(
        "sproxy_awg_reconnects_total",
        "counter",
        "Times that a client found its session lost, or silent, and saw to it.",
        ("link",),
    ),
    MetricSpec(
        "sproxy_awg_moves_total", "counter", "Times that the other side changed its address.", ("link",)
    ),
    MetricSpec(
        "sproxy_awg_bytes_total",
        "counter",
        "UDP payload of the session, with junk and padding: sent, received.",
        ("link", "direction"),
    ),
    MetricSpec(
        "sproxy_awg_round_trip_seconds", "gauge", "QUIC's smoothed round trip in the session.", ("link",)
    ),
    MetricSpec(
        "sproxy_awg_latency_seconds",
        "gauge",
        "Time from asking for a connection until its destination answered: quantiles of the last 1024.",
        ("link", "quantile"),
    ),
    MetricSpec(
        "sproxy_awg_auth_failures_total",
        "counter",
        "Handshakes that were not answered: a wrong key, an unknown peer, a recorded initiation.",
        ("reason",),
    ),
    MetricSpec(
        "sproxy_awg_rejected_total",
        "counter",
        "Datagrams that were dropped for other reasons.",
        ("reason",),
    ),
)

AUTH_FAILURES = frozenset(
    {Rejection.BAD_MAC1, Rejection.UNREADABLE, Rejection.UNKNOWN_PEER, Rejection.OLD_TIMESTAMP}
)

Sample = tuple[str, Labels, float]
"""A metric's name, its labels' values, and the value."""


def count(event: AwgHappened) -> Iterator[Sample]:
    """Yield what *event* adds to which counter."""
    match event.event:
        case HandshakeCompleted():
            yield "sproxy_awg_handshakes_total", (event.link, "ok"), 1
        case HandshakeFailed(reason=reason):
            yield "sproxy_awg_handshakes_total", (event.link, _label(reason)), 1
        case SessionUp():
            yield "sproxy_awg_sessions_total", (event.link,), 1
        case Reconnecting():
            yield "sproxy_awg_reconnects_total", (event.link,), 1
        case PeerMoved():
            yield "sproxy_awg_moves_total", (event.link,), 1
        case _:
            pass


def read(figures: AwgFigures) -> Iterator[Sample]:
    """Yield what *figures* set each gauge and counter to."""
    for session in figures.sessions:
        link = session.link
        yield "sproxy_awg_sessions", (link,), float(session.up)
        yield "sproxy_awg_streams", (link,), session.streams
        yield "sproxy_awg_bytes_total", (link, "sent"), session.sent
        yield "sproxy_awg_bytes_total", (link, "received"), session.received
        if session.round_trip is not None:
            yield "sproxy_awg_round_trip_seconds", (link,), session.round_trip
        for quantile, seconds in session.latency.items():
            yield "sproxy_awg_latency_seconds", (link, f"{quantile:g}"), seconds
    for reason, number in figures.rejections.items():
        name = "auth_failures" if reason in AUTH_FAILURES else "rejected"
        yield f"sproxy_awg_{name}_total", (_label(reason),), number


def _label(reason: str) -> str:
    return str(reason).replace(" ", "-")

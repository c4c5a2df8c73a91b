"""What Prometheus scrapes of a relay server, made of the same events as the log.

The names that begin with ``tunnel_`` are those that dashboards for such tunnels expect.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import assert_never

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from session_proxy.observability.metric_spec import Labels, MetricSpec
from session_proxy.observability.metrics import Distribution
from tunnel_relay.category import Category
from tunnel_relay.server.events import (
    UNAUTHENTICATED,
    Answered,
    Cause,
    Ending,
    LimitReached,
    LinkClosed,
    LinkOpened,
    LoggedIn,
    RateExceeded,
    RelayEvent,
    SessionRefused,
    TokenRefreshed,
    TurnedAway,
)

# Milliseconds.
LATENCY_BUCKETS = (
    1.0,
    2.5,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
)

RELAY_CATALOGUE = (
    MetricSpec(
        "tunnel_requests_total",
        "counter",
        "Streams and requests that agents, or the relay itself, have answered: ok or refused.",
        ("kind", "outcome"),
    ),
    MetricSpec(
        "tunnel_request_latency_ms",
        "histogram",
        "Milliseconds from a stream's or a request's arrival until its answer.",
        ("kind",),
        LATENCY_BUCKETS,
    ),
    MetricSpec(
        "tunnel_active_connections",
        "gauge",
        "Connections of clients and agents that are open now.",
        ("role",),
    ),
    MetricSpec(
        "tunnel_errors_total",
        "counter",
        "What went wrong: network, authentication, configuration, server, protocol.",
        ("category",),
    ),
    MetricSpec(
        "tunnel_queue_size", "gauge", "Frames that wait for a connection that is slower than they come."
    ),
    MetricSpec(
        "tunnel_circuit_breaker_state",
        "gauge",
        "The worst state of all circuit breakers: 0 closed, 1 half open, 2 open.",
    ),
    MetricSpec("sproxy_relay_links_total", "counter", "Clients and agents that were let in.", ("role",)),
    MetricSpec(
        "sproxy_relay_links_closed_total", "counter", "Connections that ended, by how.", ("role", "ending")
    ),
    MetricSpec(
        "sproxy_relay_turned_away_total", "counter", "Connections that were not let in, by why.", ("cause",)
    ),
    MetricSpec(
        "sproxy_relay_rate_violations_total",
        "counter",
        "Times that something was asked for too often: delayed or refused.",
        ("act", "result"),
    ),
    MetricSpec(
        "sproxy_relay_limits_reached_total", "counter", "Times that a user would have had too much at a time."
    ),
    MetricSpec(
        "sproxy_relay_sessions_refused_total",
        "counter",
        "Sessions that an end would not have, or not go on with: taken over, unknown, overrun.",
    ),
    MetricSpec("sproxy_relay_tokens_refreshed_total", "counter", "Tokens that were replaced in band."),
    MetricSpec("sproxy_relay_sessions", "gauge", "Sessions between clients and agents that pass here now."),
    MetricSpec(
        "sproxy_relay_streams", "gauge", "Streams in them, and in those whose client may still come back."
    ),
    MetricSpec("sproxy_relay_ssh_connections", "gauge", "The relay's own SSH connections to agents."),
    MetricSpec("sproxy_relay_ssh_streams", "gauge", "Streams over them."),
    MetricSpec(
        "sproxy_relay_peers", "gauge", "Links to other servers of the relay, for clients that are here."
    ),
    MetricSpec("sproxy_relay_store_up", "gauge", "0 where what servers share cannot be asked now."),
    MetricSpec("sproxy_relay_queue_bytes", "gauge", "Bytes of the frames that wait."),
    MetricSpec("sproxy_relay_audit_entries_total", "counter", "Entries of the audit log that were written."),
    MetricSpec(
        "sproxy_relay_audit_lost_total",
        "counter",
        "Entries of the audit log that were lost: there was no room.",
    ),
    MetricSpec("sproxy_ready", "gauge", "1 where /readyz answers 200."),
    MetricSpec("sproxy_log_lines_dropped_total", "counter", "Log lines that were lost: nobody took them."),
)

# What an operator of the relay answers for; everything else is the other end's, or the network's between.
_SERVER = frozenset({Cause.CROWD, Cause.RATE, Cause.LIMIT, Cause.DRAINING})


@attrs.frozen(kw_only=True)
class RelayFigures:
    """What is read when somebody asks; see `RELAY_CATALOGUE`."""

    sessions: int = 0
    streams: int = 0
    queue: int = 0
    queue_bytes: int = 0
    breaker: int = 0
    ssh_connections: int = 0
    ssh_streams: int = 0
    peers: int = 0
    store_up: bool = True
    audited: int = 0
    audit_lost: int = 0
    ready: bool = False
    dropped: int = 0


def category_of(event: RelayEvent) -> Category | None:
    """Return what kind of trouble *event* is; None where it is none."""
    match event:
        case TurnedAway(cause=cause):
            if cause in UNAUTHENTICATED:
                return Category.AUTHENTICATION
            if cause in _SERVER:
                return Category.SERVER
            return Category.NETWORK if cause is Cause.SLOW else Category.PROTOCOL
        case LinkClosed(ending=Ending.TOKEN):
            return Category.AUTHENTICATION
        case LinkClosed(ending=Ending.BROKEN) | SessionRefused():
            return Category.PROTOCOL
        case LinkClosed(ending=Ending.LOST):
            return Category.NETWORK
        case RateExceeded() | LimitReached():
            return Category.SERVER
        case _:
            return None


def _values() -> dict[str, dict[Labels, float]]:
    numbers = [spec for spec in RELAY_CATALOGUE if spec.kind != "histogram"]
    values: dict[str, dict[Labels, float]] = {spec.name: defaultdict(float) for spec in numbers}
    # What has no labels is shown from the start, as 0, and so is what alarms are made of.
    values.update({spec.name: defaultdict(float, {(): 0.0}) for spec in numbers if not spec.labels})
    values["tunnel_errors_total"].update({(category.value,): 0.0 for category in Category})
    values["tunnel_active_connections"].update({("client",): 0.0, ("agent",): 0.0})
    return values


@attrs.define(eq=False)
class RelayMetrics(Collector):
    """Counts events, and shows the sums in a registry of its own.

    Attributes:
      figures: Asked whenever the metrics are scraped.

    """

    figures: Callable[[], RelayFigures] = RelayFigures
    registry: CollectorRegistry = attrs.field(factory=CollectorRegistry, init=False, repr=False)
    _values: dict[str, dict[Labels, float]] = attrs.field(factory=_values, init=False, repr=False)
    _latency: dict[Labels, Distribution] = attrs.field(
        factory=lambda: defaultdict(functools.partial(Distribution, LATENCY_BUCKETS)), init=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        self.registry.register(self)
        ProcessCollector(namespace="sproxy", registry=self.registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type, in the format that the ``Accept`` header prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def collect(self) -> Iterable[Metric]:
        """Yield every metric of the catalogue as it is now."""
        for name, value in _read(self.figures()):
            self._values[name][()] = value
        for spec in RELAY_CATALOGUE:
            if spec.kind == "histogram":
                histogram = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
                for labels, spread in self._latency.items():
                    histogram.add_metric(labels, spread.buckets(), spread.total)
                yield histogram
            else:
                family = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
                metric = family(spec.name, spec.help, labels=spec.labels)
                for labels, value in self._values[spec.name].items():
                    metric.add_metric(labels, value)
                yield metric

    def __call__(self, event: RelayEvent) -> None:
        """Count *event*."""
        values, category = self._values, category_of(event)
        if category is not None:
            values["tunnel_errors_total"][category.value,] += getattr(event, "times", 1)
        match event:
            case Answered(kind=kind, ok=ok, seconds=seconds):
                values["tunnel_requests_total"][kind.value, "ok" if ok else "refused"] += 1
                self._latency[kind.value,].observe(seconds * 1000)
            case TurnedAway(cause=cause):
                values["sproxy_relay_turned_away_total"][cause.value,] += 1
            case LinkOpened(agent=agent):
                values["tunnel_active_connections"][_role(agent),] += 1
                values["sproxy_relay_links_total"][_role(agent),] += 1
            case LinkClosed(agent=agent, ending=ending):
                values["tunnel_active_connections"][_role(agent),] -= 1
                values["sproxy_relay_links_closed_total"][_role(agent), ending.value] += 1
            case RateExceeded(act=act, refused=refused, times=times):
                result = "refused" if refused else "delayed"
                values["sproxy_relay_rate_violations_total"][act.value, result] += times
            case LimitReached(times=times):
                values["sproxy_relay_limits_reached_total"][()] += times
            case SessionRefused():
                values["sproxy_relay_sessions_refused_total"][()] += 1
            case TokenRefreshed():
                values["sproxy_relay_tokens_refreshed_total"][()] += 1
            case LoggedIn():
                # How many connections there are is a figure.
                return
            case _:
                assert_never(event)


def _role(agent: str | None) -> str:
    return "client" if agent is None else "agent"


def _read(figures: RelayFigures) -> Iterator[tuple[str, float]]:
    yield "tunnel_queue_size", figures.queue
    yield "tunnel_circuit_breaker_state", figures.breaker
    yield "sproxy_relay_sessions", figures.sessions
    yield "sproxy_relay_streams", figures.streams
    yield "sproxy_relay_ssh_connections", figures.ssh_connections
    yield "sproxy_relay_ssh_streams", figures.ssh_streams
    yield "sproxy_relay_peers", figures.peers
    yield "sproxy_relay_store_up", float(figures.store_up)
    yield "sproxy_relay_queue_bytes", figures.queue_bytes
    yield "sproxy_relay_audit_entries_total", figures.audited
    yield "sproxy_relay_audit_lost_total", figures.audit_lost
    yield "sproxy_ready", float(figures.ready)
    yield "sproxy_log_lines_dropped_total", figures.dropped

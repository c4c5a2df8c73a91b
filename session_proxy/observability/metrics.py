"""What Prometheus scrapes, made from the same events as the log.

`CATALOGUE` is the one list of names; ``docs/reference/metrics.md`` is generated from it. Each `Metrics` has
its own registry, so that two proxies in one process do not mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, assert_never

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from session_proxy.events import (
    ConnectionClosed,
    ConnectionOpened,
    Event,
    LinksChanged,
    Listening,
    Notice,
    UdpAssociationClosed,
    UpstreamDown,
    UpstreamUp,
)
from session_proxy.outbound.transport import Health, HealthState

# Seconds. A loopback connect takes 100 µs, a new SSM session some seconds.
DIAL_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# Seconds. A page's request, a long poll, a day's SSH login.
LIFE_BUCKETS = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0)


@attrs.frozen
class MetricSpec:
    """One metric as Prometheus shows it: its whole name, its kind, what it says, its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


CATALOGUE = (
    MetricSpec("sproxy_connections_open", "gauge", "Client connections that are open now."),
    MetricSpec(
        "sproxy_connections_total",
        "counter",
        "Client connections that ended, by how. The upstream is empty where none was chosen.",
        ("protocol", "upstream", "outcome"),
    ),
    MetricSpec(
        "sproxy_bytes_total",
        "counter",
        "Payload of ended connections: sent by clients, received by clients.",
        ("upstream", "direction"),
    ),
    MetricSpec(
        "sproxy_dial_seconds",
        "histogram",
        "Time from a client's request until its destination answered.",
        ("upstream",),
    ),
    MetricSpec("sproxy_connection_seconds", "histogram", "How long connections lasted.", ("upstream",)),
    MetricSpec("sproxy_udp_associations_total", "counter", "UDP associations that ended."),
    MetricSpec(
        "sproxy_udp_datagrams_total",
        "counter",
        "Datagrams of ended associations: sent by clients, received by clients, dropped.",
        ("direction",),
    ),
    MetricSpec(
        "sproxy_upstream_up",
        "gauge",
        "1 where the upstream works, as its last in-band probe says.",
        ("upstream",),
    ),
    MetricSpec(
        "sproxy_upstream_links",
        "gauge",
        "Connections (striped sessions) that the upstream holds now.",
        ("upstream",),
    ),
    MetricSpec(
        "sproxy_upstream_connects_total", "counter", "Times that the upstream came up.", ("upstream",)
    ),
    MetricSpec(
        "sproxy_upstream_failures_total",
        "counter",
        "Times that the upstream or a link of it failed.",
        ("upstream",),
    ),
    MetricSpec("sproxy_upstream_setup_seconds", "histogram", "Time that it took to come up.", ("upstream",)),
    MetricSpec("sproxy_ready", "gauge", "1 where /readyz answers 200."),
    MetricSpec("sproxy_log_lines_dropped", "gauge", "Log lines lost since the start: nobody took them."),
)


def metrics_reference() -> Iterator[str]:
    """Return the lines of ``docs/reference/metrics.md``."""
    yield "# Metrics"
    yield ""
    yield "`GET /metrics` on the admin address answers in Prometheus' text format, or in OpenMetrics."
    yield "Beside the metrics below there is `sproxy_process_*`: memory, CPU, file descriptors (Linux)."
    yield ""
    yield "| name | kind | labels | meaning |"
    yield "|---|---|---|---|"
    for spec in CATALOGUE:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        yield f"| `{spec.name}` | {spec.kind} | {labels} | {spec.help} |"
    yield ""
    yield "`outcome` is `ok`, why a destination was not reached (`refused`, `not-allowed`, `unreachable`,"
    yield "`resolution`, `timeout`, `transport-down`), or how else a connection ended (`auth-failed`,"
    yield "`protocol-error`, `handshake-timeout`, `idle-timeout`, `reset`, `limit`, `drained`)."


@attrs.frozen(eq=False)
class _FromHealth(Collector):
    """Asks for readiness, health and dropped lines when scraped: what is read then cannot be stale."""

    health: Callable[[], Mapping[str, Health]]
    is_ready: Callable[[], bool]
    dropped: Callable[[], int]

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges that are read on demand."""
        up = _gauge("sproxy_upstream_up")
        for name, health in self.health().items():
            up.add_metric([name], float(health.state is HealthState.READY))
        ready = _gauge("sproxy_ready")
        ready.add_metric([], float(self.is_ready()))
        dropped = _gauge("sproxy_log_lines_dropped")
        dropped.add_metric([], float(self.dropped()))
        return [up, ready, dropped]


def _gauge(name: str) -> GaugeMetricFamily:
    spec = _spec(name)
    return GaugeMetricFamily(spec.name, spec.help, labels=spec.labels)


def _spec(name: str) -> MetricSpec:
    return next(spec for spec in CATALOGUE if spec.name == name)


@attrs.frozen(eq=False)
class Metrics:
    """A `Notify` that counts events in its own registry."""

    registry: CollectorRegistry = attrs.field(factory=CollectorRegistry, repr=False)
    _gauges: dict[str, Gauge] = attrs.field(factory=dict[str, Gauge], init=False, repr=False)
    _counters: dict[str, Counter] = attrs.field(factory=dict[str, Counter], init=False, repr=False)
    _histograms: dict[str, Histogram] = attrs.field(factory=dict[str, Histogram], init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        on_demand = {"sproxy_upstream_up", "sproxy_ready", "sproxy_log_lines_dropped"}
        for spec in CATALOGUE:
            if spec.name in on_demand:
                continue
            match spec.kind:
                case "gauge":
                    self._gauges[spec.name] = Gauge(spec.name, spec.help, spec.labels, registry=self.registry)
                case "counter":
                    self._counters[spec.name] = Counter(
                        spec.name, spec.help, spec.labels, registry=self.registry
                    )
                case "histogram":
                    buckets = LIFE_BUCKETS if spec.name == "sproxy_connection_seconds" else DIAL_BUCKETS
                    self._histograms[spec.name] = Histogram(
                        spec.name, spec.help, spec.labels, registry=self.registry, buckets=buckets
                    )
        ProcessCollector(namespace="sproxy", registry=self.registry)

    def watch(
        self,
        health: Callable[[], Mapping[str, Health]],
        *,
        is_ready: Callable[[], bool],
        dropped: Callable[[], int],
    ) -> None:
        """Read these too whenever the metrics are scraped."""
        self.registry.register(_FromHealth(health, is_ready, dropped))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type, in the format that the ``Accept`` header prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        match event:
            case ConnectionOpened():
                self._gauges["sproxy_connections_open"].inc()
            case ConnectionClosed():
                self._count_connection(event)
            case UdpAssociationClosed():
                self._counters["sproxy_udp_associations_total"].inc()
                datagrams = self._counters["sproxy_udp_datagrams_total"]
                datagrams.labels("sent").inc(event.sent)
                datagrams.labels("received").inc(event.received)
                datagrams.labels("dropped").inc(event.dropped)
            case UpstreamUp():
                self._counters["sproxy_upstream_connects_total"].labels(event.upstream).inc()
                self._histograms["sproxy_upstream_setup_seconds"].labels(event.upstream).observe(event.setup)
            case UpstreamDown():
                self._counters["sproxy_upstream_failures_total"].labels(event.upstream).inc()
            case LinksChanged():
                self._gauges["sproxy_upstream_links"].labels(event.upstream).set(event.links)
            case Listening() | Notice():
                pass
            case _:
                assert_never(event)

    def _count_connection(self, event: ConnectionClosed) -> None:
        self._gauges["sproxy_connections_open"].dec()
        outcome = (event.protocol, event.upstream, event.outcome)
        self._counters["sproxy_connections_total"].labels(*outcome).inc()
        if not event.upstream:
            return
        carried = self._counters["sproxy_bytes_total"]
        carried.labels(event.upstream, "sent").inc(event.sent)
        carried.labels(event.upstream, "received").inc(event.received)
        self._histograms["sproxy_connection_seconds"].labels(event.upstream).observe(event.duration)
        if event.connect_duration is not None:
            self._histograms["sproxy_dial_seconds"].labels(event.upstream).observe(event.connect_duration)

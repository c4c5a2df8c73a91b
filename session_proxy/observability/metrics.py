"""What Prometheus scrapes, made from the same events as the log.

`CATALOGUE` is the one list of names; ``docs/reference/metrics.md`` is generated from it. Each `Metrics` has
its own registry, so that two proxies in one process do not mix.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
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

from session_proxy.events import (
    AwgHappened,
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
from session_proxy.observability import awg_metrics
from session_proxy.observability.awg_metrics import AWG_CATALOGUE
from session_proxy.observability.metric_spec import LIFE_BUCKETS, Labels, MetricSpec
from session_proxy.outbound.awg_figures import AwgFigures
from session_proxy.outbound.transport import Health, HealthState

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
    MetricSpec(
        "sproxy_connection_seconds", "histogram", "How long connections lasted.", ("upstream",), LIFE_BUCKETS
    ),
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
    *AWG_CATALOGUE,
    MetricSpec("sproxy_ready", "gauge", "1 where /readyz answers 200."),
    MetricSpec("sproxy_log_lines_dropped_total", "counter", "Log lines that were lost: nobody took them."),
)


def metrics_reference() -> Iterator[str]:
    """Return the lines about a proxy, and an awg server, in ``docs/reference/metrics.md``."""
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
    yield "`protocol-error`, `bad-answer`, `udp-unsupported`, `handshake-timeout`, `idle-timeout`, `reset`,"
    yield "`limit`, `drained`)."


@attrs.define(eq=False)
class Distribution:
    """How many observations fell up to each of *bounds* (seconds, rising), and beyond the last."""

    bounds: tuple[float, ...]
    total: float = attrs.field(default=0.0, init=False)
    _counts: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts by their upper bounds, as Prometheus wants them."""
        return list(zip([*map(str, self.bounds), "+Inf"], map(float, accumulate(self._counts)), strict=True))


def _values() -> dict[str, dict[Labels, float]]:
    numbers = [spec for spec in CATALOGUE if spec.kind != "histogram"]
    values: dict[str, dict[Labels, float]] = {spec.name: defaultdict(float) for spec in numbers}
    # What has no labels is shown from the start, as 0.
    values.update({spec.name: defaultdict(float, {(): 0.0}) for spec in numbers if not spec.labels})
    return values


def _distributions() -> dict[str, dict[Labels, Distribution]]:
    return {
        spec.name: defaultdict(functools.partial(Distribution, spec.buckets))
        for spec in CATALOGUE
        if spec.kind == "histogram"
    }


@attrs.define(eq=False)
class Metrics(Collector):
    """A `Notify` that counts events, and shows the sums in its own registry.

    The sums are plain numbers, since every connection passes here; Prometheus' objects are made when it
    asks.
    """

    registry: CollectorRegistry = attrs.field(factory=CollectorRegistry, init=False, repr=False)
    _values: dict[str, dict[Labels, float]] = attrs.field(factory=_values, init=False, repr=False)
    _seconds: dict[str, dict[Labels, Distribution]] = attrs.field(
        factory=_distributions, init=False, repr=False
    )
    _refresh: Callable[[], None] | None = attrs.field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.registry.register(self)
        ProcessCollector(namespace="sproxy", registry=self.registry)

    def watch(
        self,
        health: Callable[[], Mapping[str, Health]],
        *,
        is_ready: Callable[[], bool],
        dropped: Callable[[], int],
        figures: Callable[[], AwgFigures] = AwgFigures,
        streams: Callable[[], int] | None = None,
    ) -> None:
        """Ask these too whenever the metrics are scraped: what is read then cannot be stale.

        *streams* is how many connections are open, where there are events of their ends only.
        """

        def refresh() -> None:
            up = self._values["sproxy_upstream_up"]
            for name, state in health().items():
                up[name,] = float(state.state is HealthState.READY)
            for name, labels, value in awg_metrics.read(figures()):
                self._values[name][labels] = value
            if streams is not None:
                self._values["sproxy_connections_open"][()] = float(streams())
            self._values["sproxy_ready"][()] = float(is_ready())
            self._values["sproxy_log_lines_dropped_total"][()] = float(dropped())

        self._refresh = refresh

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type, in the format that the ``Accept`` header prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def collect(self) -> Iterable[Metric]:
        """Yield every metric of the catalogue as it is now."""
        if self._refresh is not None:
            self._refresh()
        for spec in CATALOGUE:
            if spec.kind == "histogram":
                histogram = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
                for labels, seconds in self._seconds[spec.name].items():
                    histogram.add_metric(labels, seconds.buckets(), seconds.total)
                yield histogram
            else:
                family = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
                metric = family(spec.name, spec.help, labels=spec.labels)
                for labels, value in self._values[spec.name].items():
                    metric.add_metric(labels, value)
                yield metric

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        values = self._values
        match event:
            case ConnectionOpened():
                values["sproxy_connections_open"][()] += 1
            case ConnectionClosed():
                self._count_connection(event)
            case UdpAssociationClosed():
                values["sproxy_udp_associations_total"][()] += 1
                datagrams = values["sproxy_udp_datagrams_total"]
                datagrams["sent",] += event.sent
                datagrams["received",] += event.received
                datagrams["dropped",] += event.dropped
            case UpstreamUp():
                values["sproxy_upstream_connects_total"][event.upstream,] += 1
                self._seconds["sproxy_upstream_setup_seconds"][event.upstream,].observe(event.setup)
            case UpstreamDown():
                values["sproxy_upstream_failures_total"][event.upstream,] += 1
            case LinksChanged():
                values["sproxy_upstream_links"][event.upstream,] = event.links
            case AwgHappened():
                for name, labels, number in awg_metrics.count(event):
                    values[name][labels] += number
            case Listening() | Notice():
                pass
            case _:
                assert_never(event)

    def _count_connection(self, event: ConnectionClosed) -> None:
        values = self._values
        upstream = event.upstream
        values["sproxy_connections_open"][()] -= 1
        values["sproxy_connections_total"][event.protocol, upstream, event.outcome] += 1
        if not upstream:
            return
        carried = values["sproxy_bytes_total"]
        carried[upstream, "sent"] += event.sent
        carried[upstream, "received"] += event.received
        self._seconds["sproxy_connection_seconds"][upstream,].observe(event.duration)
        if event.connect_duration is not None:
            self._seconds["sproxy_dial_seconds"][upstream,].observe(event.connect_duration)

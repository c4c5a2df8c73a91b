"""What Prometheus scrapes of a relay's agent, made of the same events as the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from session_proxy.observability.metric_spec import Labels, MetricSpec
from tunnel_relay.category import Category
from tunnel_relay.dial_events import (
    AuthenticationNeeded,
    DialEvent,
    DialFailed,
    Linked,
    LinkLost,
    TokenRefreshed,
)

AGENT_CATALOGUE = (
    MetricSpec("sproxy_agent_linked", "gauge", "1 where there is a connection to a relay server."),
    MetricSpec(
        "sproxy_agent_sessions", "gauge", "Sessions of clients, those that wait for their client included."
    ),
    MetricSpec("sproxy_agent_streams", "gauge", "Connections to services that are open now."),
    MetricSpec(
        "sproxy_agent_links_total", "counter", "Connections to relay servers that came up.", ("relay",)
    ),
    MetricSpec(
        "sproxy_agent_reconnections_total", "counter", "Connections to relay servers after the first."
    ),
    MetricSpec(
        "sproxy_agent_errors_total",
        "counter",
        "What went wrong: network, authentication, configuration, server, protocol.",
        ("category",),
    ),
    MetricSpec("sproxy_agent_tokens_refreshed_total", "counter", "Tokens that were replaced in band."),
)


@attrs.frozen(kw_only=True)
class AgentFigures:
    """What is read when somebody asks; see `AGENT_CATALOGUE`."""

    linked: bool = False
    sessions: int = 0
    streams: int = 0
    reconnections: int = 0


def _values() -> dict[str, dict[Labels, float]]:
    values: dict[str, dict[Labels, float]] = {spec.name: defaultdict(float) for spec in AGENT_CATALOGUE}
    values.update({spec.name: defaultdict(float, {(): 0.0}) for spec in AGENT_CATALOGUE if not spec.labels})
    values["sproxy_agent_errors_total"].update({(category.value,): 0.0 for category in Category})
    return values


@attrs.define(eq=False)
class AgentMetrics(Collector):
    """Counts events, and shows the sums in a registry of its own.

    Attributes:
      figures: Asked whenever the metrics are scraped.

    """

    figures: Callable[[], AgentFigures] = AgentFigures
    registry: CollectorRegistry = attrs.field(factory=CollectorRegistry, init=False, repr=False)
    _values: dict[str, dict[Labels, float]] = attrs.field(factory=_values, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.registry.register(self)
        ProcessCollector(namespace="sproxy", registry=self.registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type, in the format that the ``Accept`` header prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def collect(self) -> Iterable[Metric]:
        """Yield every metric of the catalogue as it is now."""
        figures = self.figures()
        for name, value in (
            ("sproxy_agent_linked", float(figures.linked)),
            ("sproxy_agent_sessions", figures.sessions),
            ("sproxy_agent_streams", figures.streams),
            ("sproxy_agent_reconnections_total", figures.reconnections),
        ):
            self._values[name][()] = value
        for spec in AGENT_CATALOGUE:
            family = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
            metric = family(spec.name, spec.help, labels=spec.labels)
            for labels, value in self._values[spec.name].items():
                metric.add_metric(labels, value)
            yield metric

    def __call__(self, event: DialEvent) -> None:
        """Count *event*."""
        match event:
            case Linked(url=url):
                self._values["sproxy_agent_links_total"][url,] += 1
            case LinkLost(category=category) | DialFailed(category=category):
                self._values["sproxy_agent_errors_total"][category.value,] += 1
            case TokenRefreshed():
                self._values["sproxy_agent_tokens_refreshed_total"][()] += 1
            case AuthenticationNeeded():
                # What led to it was counted.
                pass


def agent_metrics_reference() -> Iterator[str]:
    """Return the lines about an agent in ``docs/reference/metrics.md``."""
    yield "## Of a relay's agent"
    yield ""
    yield "`sproxy relay-agent` has these instead, on its admin address."
    yield ""
    yield "| name | kind | labels | meaning |"
    yield "|---|---|---|---|"
    for spec in AGENT_CATALOGUE:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        yield f"| `{spec.name}` | {spec.kind} | {labels} | {spec.help} |"

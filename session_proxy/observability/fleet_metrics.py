"""What Prometheus scrapes of several processes that serve together: one page, on which each sample says whose it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from session_proxy.observability.metric_spec import MetricSpec

LABEL = "worker"

# What the process is called that has started the others.
OURSELVES = "0"

UP = MetricSpec("sproxy_relay_worker_up", "gauge", "1 where the worker is there and answers.", (LABEL,))
RESTARTS = MetricSpec(
    "sproxy_relay_worker_restarts_total",
    "counter",
    "Times that the worker has ended and was started again.",
    (LABEL,),
)
FLEET_CATALOGUE = (UP, RESTARTS)


@attrs.frozen(kw_only=True)
class WorkerFigures:
    """What is known of a worker: its metrics, as *text* in Prometheus' format; None where it does not answer."""

    text: str | None
    restarts: int


@attrs.define(eq=False)
class FleetMetrics:
    """Joins the metrics of workers, and adds those of this process."""

    _process: CollectorRegistry = attrs.field(factory=CollectorRegistry, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        ProcessCollector(namespace="sproxy", registry=self._process)

    def render(self, workers: Mapping[int, WorkerFigures], accept: str = "") -> tuple[bytes, str]:
        """Return the metrics of *workers* by their numbers, in the format that the ``Accept`` header prefers."""
        up = GaugeMetricFamily(UP.name, UP.help, labels=UP.labels)
        restarts = CounterMetricFamily(RESTARTS.name, RESTARTS.help, labels=RESTARTS.labels)
        texts = {OURSELVES: generate_latest(self._process).decode()}
        for number, figures in workers.items():
            up.add_metric([str(number)], float(figures.text is not None))
            restarts.add_metric([str(number)], float(figures.restarts))
            if figures.text is not None:
                texts[str(number)] = figures.text
        registry = CollectorRegistry()
        registry.register(_Families([*join(texts), up, restarts]))
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type


def content_type_of(accept: str) -> str:
    """Return what metrics come as that an ``Accept`` header prefers."""
    return choose_encoder(accept)[1]


def join(texts: Mapping[str, str]) -> Iterable[Metric]:
    """Return the families of *texts*, which have Prometheus' format, by what ``worker`` is to say of their samples."""
    families: dict[str, Metric] = {}
    for worker, text in texts.items():
        for family in text_string_to_metric_families(text):
            joined = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            joined.samples += [
                sample._replace(labels={**sample.labels, LABEL: worker}) for sample in family.samples
            ]
    return families.values()


@attrs.frozen(eq=False)
class _Families(Collector):
    families: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families

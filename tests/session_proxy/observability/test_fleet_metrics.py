"""The metrics of several processes on one page, which parsers of both formats take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import pytest
from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser

from session_proxy.observability.fleet_metrics import FleetMetrics, WorkerFigures, join
from session_proxy.observability.relay_metrics import RELAY_CATALOGUE, RelayMetrics
from tunnel_relay.server.events import Answered, Kind, Origin

# It has no types.
PARSE = "text_string_to_metric_families"

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def answered(kind: Kind) -> str:
    """Return the metrics of a worker with one answer of a kind."""
    metrics = RelayMetrics()
    metrics(Answered(origin=Origin(connection="1", address="::1"), user="a", kind=kind, ok=True, seconds=0.1))
    return metrics.render()[0].decode()


def parse(text: str, *, openmetrics: bool) -> Iterable[Metric]:
    if openmetrics:
        untyped = cast("Callable[[str], Iterable[Metric]]", vars(openmetrics_parser)[PARSE])
        return untyped(text)
    return parser.text_string_to_metric_families(text)


@pytest.fixture
def workers() -> dict[int, WorkerFigures]:
    kinds = list(Kind)
    return {
        1: WorkerFigures(text=answered(kinds[0]), restarts=0),
        2: WorkerFigures(text=answered(kinds[-1]), restarts=3),
        3: WorkerFigures(text=None, restarts=1),
    }


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_each_family_is_there_once_and_each_sample_says_whose_it_is(
    workers: dict[int, WorkerFigures], accept: str
) -> None:
    body, content_type = FleetMetrics().render(workers, accept)
    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
    families = list(parse(body.decode(), openmetrics=bool(accept)))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    samples = {
        (sample.name, sample.labels.get("kind", ""), sample.labels["worker"]): sample.value
        for family in families
        for sample in family.samples
    }
    for spec in RELAY_CATALOGUE:
        if not spec.labels:
            assert {worker for name, _, worker in samples if name == spec.name} == {"1", "2"}
        assert (
            f"# HELP {spec.name.removesuffix('_total') if accept else spec.name} {spec.help}" in body.decode()
        )
    kinds = list(Kind)
    assert samples["tunnel_request_latency_ms_count", kinds[0].value, "1"] == 1
    assert samples["tunnel_requests_total", kinds[-1].value, "2"] == 1
    assert samples["sproxy_process_open_fds", "", "0"] > 0
    up = [samples["sproxy_relay_worker_up", "", str(worker)] for worker in (1, 2, 3)]
    restarts = [samples["sproxy_relay_worker_restarts_total", "", str(worker)] for worker in (1, 2, 3)]
    assert (up, restarts) == ([1, 1, 0], [0, 3, 1])


def test_labels_that_need_quoting_stay_as_they_are() -> None:
    [family] = join({"1": '# HELP a b\\\\c\n# TYPE a gauge\na{x="say \\"\\n\\\\"} 1.0\n'})
    assert family.documentation == "b\\c"
    assert [sample.labels for sample in family.samples] == [{"x": 'say "\n\\', "worker": "1"}]

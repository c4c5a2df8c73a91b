"""The page of the documentation that lists all metrics, made from their catalogues: ``docs/reference/metrics.md``."""

from __future__ import annotations

from collections.abc import Iterator

from session_proxy.observability.agent_metrics import agent_metrics_reference
from session_proxy.observability.fleet_metrics import FLEET_CATALOGUE
from session_proxy.observability.metrics import metrics_reference
from session_proxy.observability.relay_metrics import RELAY_CATALOGUE


def metrics_page() -> Iterator[str]:
    """Return the lines of the page."""
    yield from metrics_reference()
    yield ""
    yield "## Of a relay server"
    yield ""
    yield "`sproxy relay-server` has these instead, on its admin address; with `metrics_token`, who presents that gets"
    yield "them on the public port, too. They are at `/metrics` and at `/api/tunnel/metrics`."
    yield ""
    yield "| name | kind | labels | meaning |"
    yield "|---|---|---|---|"
    for spec in RELAY_CATALOGUE:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        yield f"| `{spec.name}` | {spec.kind} | {labels} | {spec.help} |"
    yield ""
    yield "With several [workers](../relay.md#more-than-one-core), a page shows all of them, whichever is asked: each"
    yield "sample has the label `worker`, a number from 1 on, and there are these, too. The process that keeps them"
    yield 'running is `worker="0"`: of it there is `sproxy_process_*`.'
    yield ""
    yield "| name | kind | labels | meaning |"
    yield "|---|---|---|---|"
    for spec in FLEET_CATALOGUE:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        yield f"| `{spec.name}` | {spec.kind} | {labels} | {spec.help} |"
    yield ""
    yield from agent_metrics_reference()

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from session_proxy.observability.agent_metrics import (
    AGENT_CATALOGUE,
    AgentFigures,
    AgentMetrics,
    agent_metrics_reference,
)
from tunnel_relay.category import Category
from tunnel_relay.dial_events import AuthenticationNeeded, DialFailed, Linked, LinkLost, TokenRefreshed

URL = "wss://relay.example"


def values(metrics: AgentMetrics) -> dict[str, float]:
    text = metrics.render()[0].decode()
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_events_are_counted_and_figures_read() -> None:
    metrics = AgentMetrics(lambda: AgentFigures(linked=True, sessions=2, streams=3, reconnections=4))
    for event in (
        DialFailed(URL, "refused", Category.NETWORK, 2.0),
        Linked(URL, 0.1),
        LinkLost(URL, "closed", Category.SERVER),
        Linked(URL, 0.1),
        TokenRefreshed(None),
        AuthenticationNeeded("none"),
    ):
        metrics(event)
    found = values(metrics)
    assert found["sproxy_agent_linked"] == 1
    assert found["sproxy_agent_sessions"] == 2
    assert found["sproxy_agent_streams"] == 3
    assert found["sproxy_agent_reconnections_total"] == 4
    assert found[f"sproxy_agent_links_total{URL}"] == 2
    assert found["sproxy_agent_errors_totalnetwork"] == 1
    assert found["sproxy_agent_errors_totalserver"] == 1
    assert found["sproxy_agent_errors_totalprotocol"] == 0
    assert found["sproxy_agent_tokens_refreshed_total"] == 1


def test_the_reference_has_every_name() -> None:
    text = "\n".join(agent_metrics_reference())
    assert all(f"`{spec.name}`" in text for spec in AGENT_CATALOGUE)

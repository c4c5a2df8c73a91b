"""What a relay server counts."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from session_proxy.observability.relay_metrics import (
    RELAY_CATALOGUE,
    RelayFigures,
    RelayMetrics,
)
from tests.support.relay_events import EVENTS
from tunnel_relay.server.events import LinkClosed

SEED_NAMES = {
    "tunnel_requests_total",
    "tunnel_request_latency_ms",
    "tunnel_active_connections",
    "tunnel_errors_total",
    "tunnel_queue_size",
    "tunnel_circuit_breaker_state",
}


def samples(metrics: RelayMetrics) -> dict[tuple[str, ...], float]:
    """Return what is shown, by name and labels' values."""
    body, _ = metrics.render()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_the_names_that_dashboards_expect() -> None:
    assert {spec.name for spec in RELAY_CATALOGUE} >= SEED_NAMES
    shown = {name for name, *_ in samples(counted())}
    assert shown >= SEED_NAMES - {"tunnel_request_latency_ms"} | {"tunnel_request_latency_ms_bucket"}


def counted() -> RelayMetrics:
    metrics = RelayMetrics(
        lambda: RelayFigures(
            sessions=2,
            streams=5,
            queue=3,
            queue_bytes=4096,
            breaker=1,
            ssh_connections=6,
            ssh_streams=7,
            ready=True,
        )
    )
    for event in EVENTS:
        metrics(event)
    return metrics


def test_what_is_counted() -> None:
    shown = samples(counted())
    expected = {
        ("tunnel_requests_total", "open", "ok"): 1,
        ("tunnel_requests_total", "request", "refused"): 1,
        ("tunnel_request_latency_ms_bucket", "open", "250.0"): 1,
        ("tunnel_request_latency_ms_bucket", "open", "100.0"): 0,
        ("tunnel_request_latency_ms_sum", "open"): 250.0,
        ("tunnel_active_connections", "agent"): 1,
        ("tunnel_active_connections", "client"): -4,
        ("tunnel_errors_total", "authentication"): 2,
        ("tunnel_errors_total", "protocol"): 3,
        ("tunnel_errors_total", "network"): 2,
        ("tunnel_errors_total", "server"): 4,
        ("tunnel_errors_total", "configuration"): 0,
        ("tunnel_queue_size",): 3,
        ("tunnel_circuit_breaker_state",): 1,
        ("sproxy_relay_links_total", "agent"): 1,
        ("sproxy_relay_links_closed_total", "left", "client"): 1,
        ("sproxy_relay_turned_away_total", "expired"): 1,
        ("sproxy_relay_rate_violations_total", "open", "delayed"): 1,
        ("sproxy_relay_rate_violations_total", "request", "refused"): 1,
        ("sproxy_relay_limits_reached_total",): 1,
        ("sproxy_relay_sessions_refused_total",): 1,
        ("sproxy_relay_tokens_refreshed_total",): 1,
        ("sproxy_relay_sessions",): 2,
        ("sproxy_relay_streams",): 5,
        ("sproxy_relay_ssh_connections",): 6,
        ("sproxy_relay_ssh_streams",): 7,
        ("sproxy_relay_queue_bytes",): 4096,
        ("sproxy_ready",): 1,
    }
    assert {key: shown.get(key) for key in expected} == expected
    assert len([event for event in EVENTS if isinstance(event, LinkClosed)]) == 4


def test_the_format_is_what_is_asked_for() -> None:
    body, content_type = counted().render("application/openmetrics-text; version=1.0.0")
    assert "openmetrics" in content_type
    assert body.endswith(b"# EOF\n")

"""What Prometheus gets to see, and that its documentation is current."""

from __future__ import annotations

import re

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

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
from session_proxy.observability.metrics import CATALOGUE, Metrics, metrics_reference
from session_proxy.outbound.transport import Health, HealthState
from session_proxy.target import Target

CLOSED = ConnectionClosed(
    id=1,
    client="127.0.0.1:5",
    protocol="socks5",
    target=Target("example.com", 443),
    rule="default",
    upstream="dev",
    sent=100,
    received=2000,
    duration=3.0,
    connect_duration=0.02,
    outcome="ok",
)


def scrape(*events: Event) -> dict[str, float]:
    """Return each sample by its name and labels, as they stand in the text format."""
    metrics = Metrics()
    health = {"dev": Health(HealthState.READY), "home": Health(HealthState.DOWN, "gone")}
    metrics.watch(lambda: health, is_ready=lambda: False, dropped=lambda: 7)
    for event in events:
        metrics(event)
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_connections_are_counted_by_how_they_ended() -> None:
    refused = attrs.evolve(CLOSED, outcome="refused", sent=0, received=0, connect_duration=None)
    lost = attrs.evolve(CLOSED, outcome="auth-failed", upstream="", target=None)

    samples = scrape(*[ConnectionOpened(1, "c")] * 5, CLOSED, CLOSED, refused, lost)

    assert samples["sproxy_connections_open"] == 1
    labels = 'outcome="{}",protocol="socks5",upstream="{}"'
    assert samples[f"sproxy_connections_total{{{labels.format('ok', 'dev')}}}"] == 2
    assert samples[f"sproxy_connections_total{{{labels.format('refused', 'dev')}}}"] == 1
    assert samples[f"sproxy_connections_total{{{labels.format('auth-failed', '')}}}"] == 1
    assert samples['sproxy_bytes_total{direction="sent",upstream="dev"}'] == 200
    assert samples['sproxy_bytes_total{direction="received",upstream="dev"}'] == 4000
    assert samples['sproxy_dial_seconds_bucket{le="0.025",upstream="dev"}'] == 2
    assert samples['sproxy_dial_seconds_count{upstream="dev"}'] == 2
    assert samples['sproxy_connection_seconds_bucket{le="10.0",upstream="dev"}'] == 3


def test_upstreams_show_what_became_of_them() -> None:
    samples = scrape(
        UpstreamUp("dev", "i-1", 1.5),
        UpstreamDown("dev", "i-1", "gone", 1.0),
        LinksChanged("dev", 3),
        LinksChanged("dev", 2),
    )

    assert samples['sproxy_upstream_connects_total{upstream="dev"}'] == 1
    assert samples['sproxy_upstream_failures_total{upstream="dev"}'] == 1
    assert samples['sproxy_upstream_setup_seconds_sum{upstream="dev"}'] == 1.5
    assert samples['sproxy_upstream_links{upstream="dev"}'] == 2
    assert samples['sproxy_upstream_up{upstream="dev"}'] == 1
    assert samples['sproxy_upstream_up{upstream="home"}'] == 0


def test_what_is_read_on_demand_is_there_too() -> None:
    samples = scrape(Listening("127.0.0.1:1"), Notice("dev", "hello"))

    assert (samples["sproxy_ready"], samples["sproxy_log_lines_dropped_total"]) == (0, 7)
    assert samples["sproxy_process_open_fds"] > 2


def test_datagrams_are_counted() -> None:
    samples = scrape(UdpAssociationClosed(1, "c", 10, 20, 3, 4.0))

    assert samples["sproxy_udp_associations_total"] == 1
    assert [
        samples[f'sproxy_udp_datagrams_total{{direction="{way}"}}'] for way in ("sent", "received", "dropped")
    ] == [
        10,
        20,
        3,
    ]


def test_the_catalogue_is_what_is_served() -> None:
    metrics = Metrics()
    metrics.watch(dict, is_ready=lambda: True, dropped=lambda: 0)

    families = text_string_to_metric_families(metrics.render()[0].decode())
    served = {
        (family.name, family.type, family.documentation)
        for family in families
        if "process" not in family.name
    }

    assert {(spec.name.removesuffix("_total"), spec.kind, spec.help) for spec in CATALOGUE} == served
    assert all(spec.name.startswith("sproxy_") for spec in CATALOGUE)


def test_openmetrics_is_for_those_who_ask() -> None:
    body, content_type = Metrics().render("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_registries_are_apart() -> None:
    first, second = Metrics(), Metrics()

    first(ConnectionOpened(1, "c"))

    assert b"sproxy_connections_open 0.0" in second.render()[0]


@pytest.mark.parametrize(
    "outcome", ["ok", "refused", "auth-failed", "bad-answer", "udp-unsupported", "drained", "limit"]
)
def test_the_reference_names_every_outcome(outcome: str) -> None:
    assert re.search(rf"`{outcome}`", "\n".join(metrics_reference()))

from __future__ import annotations

from session_proxy.observability.metric_spec import DIAL_BUCKETS, LIFE_BUCKETS, MetricSpec


def test_buckets_rise() -> None:
    for buckets in (DIAL_BUCKETS, LIFE_BUCKETS, MetricSpec("a", "histogram", "b").buckets):
        assert list(buckets) == sorted(set(buckets))

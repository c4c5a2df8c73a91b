"""What a metric is called and says."""

from __future__ import annotations

from typing import Literal

import attrs

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
    buckets: tuple[float, ...] = DIAL_BUCKETS


Labels = tuple[str, ...]
"""The values of a metric's labels, in their order."""

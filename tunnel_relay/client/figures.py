"""How a client's requests and its way to the agent have fared, in figures."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

import attrs

from tunnel_relay.category import Category
from tunnel_relay.protocol.requests import Status

# Of how many of the last requests the latency is told.
RECENT = 1000

# What kind of trouble it is where a request is not done.
CATEGORIES: Mapping[Status, Category] = {
    Status.NOT_ALLOWED: Category.AUTHENTICATION,
    Status.NO_SUCH_TARGET: Category.CONFIGURATION,
    Status.UNREACHABLE: Category.NETWORK,
    Status.REFUSED: Category.NETWORK,
    Status.TIMED_OUT: Category.NETWORK,
    Status.BUSY: Category.SERVER,
    Status.BROKEN: Category.NETWORK,
    Status.TOO_LONG: Category.CONFIGURATION,
    Status.FORGOTTEN: Category.SERVER,
    Status.MISUSED: Category.CONFIGURATION,
    Status.FAILED: Category.SERVER,
}


@attrs.frozen
class Latency:
    """Seconds from a request to its response: of the last `RECENT`."""

    average: float
    p95: float
    p99: float


@attrs.frozen(kw_only=True)
class TunnelMetrics:
    """How a tunnel fares.

    Attributes:
      requests: How many requests have come to an end, done or not.
      success_rate: The share of them that was done, from 0 to 1; None before the first.
      latency: None before the first.
      errors: How often there was trouble, by its kind: requests that were not done, links lost or not had.
      reconnections: How many links there were after the first.
      round_trip: Seconds to the relay and back; None where that is not known.
      uptime: Seconds for which the link has been up; 0.0 where there is none.
      queued: How many requests have no response yet.
      pressed: Whether the queue is filling, and no more requests should be made for now.

    """

    requests: int
    success_rate: float | None
    latency: Latency | None
    errors: Mapping[Category, int]
    reconnections: int
    round_trip: float | None
    uptime: float
    queued: int
    pressed: bool


@attrs.define(eq=False)
class Figures:
    """Counts.

    Attributes:
      done: Requests that were done.
      not_done: Requests that have ended in another way.
      errors: Trouble, by its kind.

    """

    done: int = attrs.field(default=0, init=False)
    not_done: int = attrs.field(default=0, init=False)
    errors: dict[Category, int] = attrs.field(factory=dict[Category, int], init=False)
    _latencies: deque[float] = attrs.field(factory=lambda: deque[float](maxlen=RECENT), init=False)

    def answered(self, status: Status, seconds: float) -> None:
        """Count a request that was answered after so many seconds."""
        self._latencies.append(seconds)
        if status is Status.DONE:
            self.done += 1
        else:
            self.not_done += 1
            self.trouble(CATEGORIES[status])

    def lost(self, category: Category) -> None:
        """Count a request that has no response."""
        self.not_done += 1
        self.trouble(category)

    def trouble(self, category: Category) -> None:
        """Count trouble of a kind."""
        self.errors[category] = self.errors.get(category, 0) + 1

    @property
    def success_rate(self) -> float | None:
        """See `TunnelMetrics`."""
        ended = self.done + self.not_done
        return self.done / ended if ended else None

    def latency(self) -> Latency | None:
        """See `TunnelMetrics`."""
        if not self._latencies:
            return None
        ordered = sorted(self._latencies)

        def percentile(share: float) -> float:
            # The smallest that so many are not above.
            return ordered[math.ceil(share * len(ordered)) - 1]

        return Latency(math.fsum(ordered) / len(ordered), percentile(0.95), percentile(0.99))

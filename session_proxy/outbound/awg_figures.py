"""The figures of AmneziaWG sessions, as ``sproxy status`` and the metrics show them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import attrs

# Some minutes of a busy client, and enough that one in a hundred is ten.
WINDOW = 1024

QUANTILES = (0.5, 0.95, 0.99)


@attrs.define(eq=False)
class Quantiles:
    """Quantiles of the last `WINDOW` observations, in seconds."""

    _window: deque[float] = attrs.field(factory=lambda: deque[float](maxlen=WINDOW), init=False, repr=False)

    def observe(self, seconds: float) -> None:
        """Count one observation; the oldest is forgotten."""
        self._window.append(seconds)

    def values(self) -> dict[float, float]:
        """Return by quantile what so many of the observations do not exceed; empty where there are none."""
        ordered = sorted(self._window)
        if not ordered:
            return {}
        # The nearest rank: a value that was observed, never one between two.
        return {quantile: ordered[int(quantile * (len(ordered) - 1) + 0.5)] for quantile in QUANTILES}


@attrs.frozen(kw_only=True)
class SessionFigures:
    """One session as it is now: with an upstream's server, or with a server's peer.

    *sent* and *received* are bytes of UDP payload since the start; *round_trip* is QUIC's, in seconds; *latency*
    are the quantiles of the time from asking for a connection until the destination answered.
    """

    link: str
    up: bool
    streams: int = 0
    sent: int = 0
    received: int = 0
    round_trip: float | None = None
    latency: Mapping[float, float] = attrs.field(factory=dict[float, float])


@attrs.frozen(kw_only=True)
class AwgFigures:
    """All sessions of a process, and by reason how many datagrams were not let in."""

    sessions: tuple[SessionFigures, ...] = ()
    rejections: Mapping[str, int] = attrs.field(factory=dict[str, int])


@runtime_checkable
class AwgSource(Protocol):
    """A transport that has such figures."""

    def figures(self) -> AwgFigures:
        """Return them as they are now."""
        ...


def total(parts: Iterable[AwgFigures]) -> AwgFigures:
    """Return the figures of several sets of sessions together."""
    sessions: list[SessionFigures] = []
    rejections: Counter[str] = Counter()
    for part in parts:
        sessions += part.sessions
        rejections.update(part.rejections)
    return AwgFigures(sessions=tuple(sessions), rejections=rejections)

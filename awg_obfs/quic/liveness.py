"""Notice that a path has died, and that it lives again, sooner than QUIC's own timers would.

QUIC doubles its probe timeout with every probe that is lost. After half a minute of blackout it would look for the
path every quarter of a minute. Probes of our own keep their pace, and the first datagram after a silence starts
QUIC's timers afresh.
"""

from __future__ import annotations

import enum

import attrs

# Silent for this long, the next probe follows so soon that two of them fit before the path counts as dead.
PROBE_INTERVAL = 0.5


class Finding(enum.Enum):
    """What `PathWatch.handle_timer` found."""

    NOTHING = enum.auto()
    PROBE = enum.auto()
    """Ask the peer for a sign of life."""
    PROBE_AND_TELL = enum.auto()
    """The same, and the path counts as dead from now on."""


@attrs.define(eq=False)
class PathWatch:
    """When the peer was last heard, and what follows from it.

    Attributes:
      probe_after: Silence after which to probe, in seconds; 0 never does.
      silent_after: Silence after which the path is dead.
      heard_at: When the last datagram came.
      silent: Whether the path counts as dead.

    """

    probe_after: float
    silent_after: float
    heard_at: float
    silent: bool = attrs.field(default=False, init=False)
    _probed_at: float = attrs.field(default=0.0, init=False)

    def heard(self, now: float) -> bool:
        """Take note of a datagram; return whether it ends a silence, so that waiting timers should start afresh.

        The answer to the first probe does not: a connection that has nothing to say is silent for that long.
        """
        silence = now - self.heard_at
        self.heard_at = now
        return silence >= (self.probe_after + PROBE_INTERVAL if self.probe_after else self.silent_after)

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due."""
        if not self.probe_after:
            return None
        return max(self.heard_at + self.probe_after, self._probed_at + PROBE_INTERVAL)

    def handle_timer(self, now: float) -> Finding:
        """Return what is to be done."""
        due = self.next_timer()
        if due is None or now < due:
            return Finding.NOTHING
        self._probed_at = now
        if not self.silent and now - self.heard_at >= self.silent_after:
            self.silent = True
            return Finding.PROBE_AND_TELL
        return Finding.PROBE

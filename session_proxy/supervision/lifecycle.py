"""The life of a service: it starts, is ready, drains, and ends. Whoever may end it asks here."""

from __future__ import annotations

import enum
import signal
from collections.abc import Sequence

import attrs
import trio

from session_proxy.errors import ExitCode


class Phase(enum.StrEnum):
    """Where a service is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@attrs.define(eq=False)
class Lifecycle:
    """Phase and end of one service.

    *stop* is set when it should take no new work and finish what it has; *cut* when it should end at once.
    """

    phase: Phase = Phase.STARTING
    listen: tuple[str, ...] = ()
    stop: trio.Event = attrs.field(factory=trio.Event, init=False)
    cut: trio.Event = attrs.field(factory=trio.Event, init=False)
    exit_code: ExitCode = attrs.field(default=ExitCode.OK, init=False)

    def become_ready(self, listen: Sequence[str]) -> None:
        """Note that clients are accepted on *listen*, unless the end was asked for meanwhile."""
        self.listen = tuple(listen)
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY

    def drain(self) -> None:
        """Ask for a graceful end. A service that is still starting has nothing to finish: it ends at once."""
        if self.phase is Phase.STARTING:
            self.cut.set()
        self.phase = Phase.DRAINING
        self.stop.set()

    def receive_signal(self, signum: int) -> None:
        """Drain on the first signal, end at once on the next one. After SIGINT the exit code tells so."""
        if signum == signal.SIGINT:
            self.exit_code = ExitCode.INTERRUPTED
        if self.phase is Phase.DRAINING:
            self.cut.set()
        else:
            self.drain()

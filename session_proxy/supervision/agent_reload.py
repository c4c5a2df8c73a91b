"""What of ``agent.toml`` may change while its agent runs: what it offers, to whom, and how much of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from session_proxy.policy.changes import Changes
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.relay_model import RelayAgent
from session_proxy.supervision.reload import settings_that_change

# All else says who the agent is, and where it dials: a restart loses no stream that goes from end to end.
CHANGEABLE = frozenset({"token", "services", "admin", "limits"})

# No keys of the file.
APART = frozenset({"file", "control"})


class Adopting(Protocol):
    """Who serves a file, and may serve another."""

    def adopt(self, agent: RelayAgent, changes: Changes) -> None:
        """Serve *agent* from now on."""
        ...


@attrs.frozen
class AgentChange:
    """A file that is ready to be taken over; see `session_proxy.supervision.reload.Change`."""

    daemon: Adopting
    agent: RelayAgent
    changes: Changes

    @property
    def admin(self) -> ListenAddress | None:
        """Where the admin pages are to be."""
        return None if self.agent.admin is None else self.agent.admin.listen

    @property
    def drain(self) -> float:
        """How long the service may take to end, in seconds."""
        return self.agent.limits.drain

    def commit(self) -> Sequence[ListenAddress]:
        """Take it over; clients are accepted nowhere, for they come through the relay."""
        self.daemon.adopt(self.agent, self.changes)
        return ()


def compare_agents(old: RelayAgent, new: RelayAgent) -> Changes:
    """Return what *new* has otherwise than *old*.

    Raises:
      ReloadError: some of it cannot change while the agent runs.

    """

    def changeable(key: str) -> bool:
        return key.partition(".")[0] in CHANGEABLE

    return Changes(settings=settings_that_change(old, new, changeable, APART, "agent"))

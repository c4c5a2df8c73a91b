"""What the workers of a fleet have said of themselves, and what that means for all of them together."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import cattrs

from session_proxy.observability.fleet_metrics import WorkerFigures
from session_proxy.profile.relay_model import RelayServer
from session_proxy.supervision.lifecycle import Phase
from session_proxy.supervision.status import RelayServerStatus, WorkerStatus

# The state of a worker that does not answer.
AWAY = "away"


@attrs.frozen(kw_only=True)
class Said:
    """What is of interest in a worker's answer to ``/status``."""

    state: str
    ready: bool
    reasons: dict[str, str]
    uptime: float
    clients: int
    agents: int
    sessions: int
    audit: str


NOTHING = Said(state=AWAY, ready=False, reasons={}, uptime=0.0, clients=0, agents=0, sessions=0, audit="")


def read_status(answer: Mapping[str, object]) -> Said:
    """Return what a worker has answered, which is of our own version."""
    return cattrs.Converter().structure(answer, Said)


@attrs.frozen(kw_only=True)
class WorkerView:
    """A worker, as it was seen last: its process, if any, and what that has *said*, and its *metrics*, if it has."""

    pid: int | None
    restarts: int
    said: Said = NOTHING
    metrics: str | None = None

    @property
    def is_away(self) -> bool:
        """Whether it accepts nobody: then the others do, and nobody notices."""
        return self.said.state in (AWAY, Phase.STARTING.value)

    @property
    def obstacle(self) -> str:
        """Why it does not serve the clients that it accepts; empty where it does."""
        if self.said.state == Phase.READY.value and not self.said.ready:
            return _listed(self.said.reasons)
        return ""

    @property
    def handicap(self) -> str:
        """What does not work, though clients are served."""
        if self.is_away:
            return "does not answer" if self.said is NOTHING else "is starting"
        return _listed(self.said.reasons) if self.said.ready else ""

    @property
    def figures(self) -> WorkerFigures:
        """What its metrics are."""
        return WorkerFigures(text=self.metrics, restarts=self.restarts)


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{part}: {reason}" for part, reason in reasons.items())


def fleet_status(server: RelayServer, views: Mapping[int, WorkerView]) -> RelayServerStatus:
    """Return how *server* is: the sums over its workers, and each of them."""
    said = [view.said for view in views.values()]
    return RelayServerStatus(
        file="" if server.file is None else str(server.file.absolute()),
        clients=sum(each.clients for each in said),
        agents=sum(each.agents for each in said),
        sessions=sum(each.sessions for each in said),
        audit="",
        workers=[
            WorkerStatus(
                worker=number,
                pid=view.pid,
                state=view.said.state,
                uptime=view.said.uptime,
                restarts=view.restarts,
                clients=view.said.clients,
                agents=view.said.agents,
                sessions=view.said.sessions,
                audit=view.said.audit,
            )
            for number, view in sorted(views.items())
        ],
    )

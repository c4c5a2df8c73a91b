"""What workers say of themselves, and what that means for all of them."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from session_proxy.profile.relay_loading import load_relay_server
from session_proxy.supervision.fleet_view import NOTHING, Said, WorkerView, fleet_status, read_status
from session_proxy.supervision.status import WorkerStatus
from tests.support.relay_files import RelayText, write_file

READY = Said(
    state="ready", ready=True, reasons={}, uptime=2.5, clients=3, agents=1, sessions=2, audit="17:abc"
)
STARTING = attrs.evolve(NOTHING, state="starting", reasons={"relay.worker-1": "starting"})
FULL = attrs.evolve(READY, ready=False, reasons={"audit": "no space left on device"})
ALONE = attrs.evolve(READY, reasons={"store": "Redis has gone"})
DRAINING = attrs.evolve(READY, state="draining", ready=False, reasons={"relay.worker-1": "draining"})


def view(said: Said) -> WorkerView:
    return WorkerView(pid=7, restarts=1, said=said, metrics="")


def test_an_answer_is_read() -> None:
    answer: dict[str, object] = {**attrs.asdict(READY), "pid": 7, "listen": ["127.0.0.1:1"], "workers": []}
    assert read_status(answer) == READY


@pytest.mark.parametrize(
    ("said", "away", "obstacle", "handicap"),
    [
        (READY, False, "", ""),
        (NOTHING, True, "", "does not answer"),
        (STARTING, True, "", "is starting"),
        (FULL, False, "audit: no space left on device", ""),
        (ALONE, False, "", "store: Redis has gone"),
        (DRAINING, False, "", ""),
    ],
)
def test_who_is_not_there_is_no_obstacle(said: Said, away: bool, obstacle: str, handicap: str) -> None:
    seen = view(said)
    assert (seen.is_away, seen.obstacle, seen.handicap) == (away, obstacle, handicap)


def test_the_sums_and_each(tmp_path: Path) -> None:
    server = load_relay_server(write_file(tmp_path, RelayText()), environ={})
    views = {2: WorkerView(pid=None, restarts=4), 1: view(READY), 3: view(attrs.evolve(READY, clients=10))}
    status = fleet_status(server, views)
    assert (status.clients, status.agents, status.sessions, status.audit) == (13, 2, 4, "")
    assert [worker.worker for worker in status.workers] == [1, 2, 3]
    assert status.workers[0] == WorkerStatus(
        worker=1,
        pid=7,
        state="ready",
        uptime=2.5,
        restarts=1,
        clients=3,
        agents=1,
        sessions=2,
        audit="17:abc",
    )
    away = status.workers[1]
    assert (away.pid, away.state, away.restarts, away.clients) == (None, "away", 4, 0)

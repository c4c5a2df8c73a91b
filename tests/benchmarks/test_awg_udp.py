from __future__ import annotations

from benchmarks.awg_udp import AT_ONCE, session_layer
from benchmarks.measures import QUICK


def test_sessions_and_sockets_are_measured() -> None:
    outcome = session_layer(QUICK)

    assert len(outcome.rows) == len(AT_ONCE)
    for row in outcome.rows:
        assert outcome.subject in row.values
        assert min(map(min, row.values.values())) > 0

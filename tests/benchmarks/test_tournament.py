from __future__ import annotations

import json

import pytest

from benchmarks.arena import Arena, Contestant, FailedError
from benchmarks.measures import Figure, Figures, Measure, Scale
from benchmarks.report import as_json, as_markdown, show
from benchmarks.tournament import Outcome, Row, play

RATE = Figure("rate", "MB/s", more=True)
OURS, PEER = Contestant("ours", None), Contestant("peer", None)


def test_a_ratio_is_the_median_of_ratios_within_rounds() -> None:
    """A machine that becomes ten times slower between rounds changes no ratio."""
    row = Row("bulk", RATE, {"ours": [200.0, 20.0, 3.0], "peer": [100.0, 10.0, 1.0]})

    assert row.ratio("ours", "peer") == 2
    assert row.median("ours") == 20


def test_there_is_no_ratio_to_what_was_not_measured() -> None:
    row = Row("bulk", RATE, {"ours": [1.0], "peer": [], "still": [0.0]})

    assert row.ratio("ours", "peer") is None
    assert row.ratio("ours", "still") is None
    assert row.ratio("ours", "nobody") is None
    assert row.median("peer") is None


async def test_rounds_are_interleaved_and_rotated(arena: Arena) -> None:
    order: list[str] = []

    async def take(_arena: Arena, contestant: Contestant, _scale: Scale) -> Figures:
        order.append(contestant.name)
        if len(order) == 3:
            raise FailedError("it fell over")
        return {"rate": float(len(order))}

    rows, failures = await play(arena, [OURS, PEER], [Measure("bulk", (RATE,), take)], Scale(rounds=2))

    assert order == ["ours", "peer", "peer", "ours"]
    assert rows[0].values == {"ours": [1.0, 4.0], "peer": [2.0]}
    assert failures == ("it fell over",)


def test_an_outcome_is_shown_and_written(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("bulk", RATE, {"ours": [6.0], "peer": [3.0]})
    outcome = Outcome(
        suite="direct", subject="ours", peers=("peer",), rows=(row,), absent={"other": "not installed"}
    )

    show(outcome)
    printed = capsys.readouterr().out
    written = json.loads(json.dumps(as_json([outcome])))

    assert "| bulk, MB/s | 6.0 | 3.0 | **2.00** |" in as_markdown(outcome)
    assert "2.00" in printed
    assert "absent: other (not installed)" in printed
    assert written["suites"][0]["figures"][0]["ratios"] == {"peer": 2}
    assert written["machine"]["processors"] >= 1

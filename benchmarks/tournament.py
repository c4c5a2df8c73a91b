"""Interleaved rounds, and what comes out of them: medians, and medians of paired ratios."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

import attrs

from benchmarks.arena import Arena, Contestant, FailedError
from benchmarks.measures import Figure, Figures, Measure, Scale


@attrs.frozen
class Row:
    """One figure of every contestant, a value per round (or none where it failed)."""

    measure: str
    figure: Figure
    values: dict[str, list[float]]

    def median(self, name: str) -> float | None:
        """Return the middle of *name*'s values."""
        return statistics.median(self.values[name]) if self.values.get(name) else None

    def ratio(self, name: str, peer: str) -> float | None:
        """Return the median over the rounds of *name*'s value divided by *peer*'s in the same round."""
        pairs = zip(self.values.get(name, ()), self.values.get(peer, ()), strict=False)
        ratios = [mine / theirs for mine, theirs in pairs if theirs]
        return statistics.median(ratios) if ratios else None


@attrs.frozen(kw_only=True)
class Outcome:
    """A suite's rows; *subject* is compared to each of *peers*; *absent* were not to be had, and why."""

    suite: str
    subject: str
    peers: tuple[str, ...]
    rows: tuple[Row, ...]
    absent: dict[str, str] = attrs.field(factory=dict[str, str])
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


async def play(
    arena: Arena, contestants: Sequence[Contestant], measures: Sequence[Measure], scale: Scale
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Take every measure of every contestant, round by round; returns rows and what failed."""
    rows: list[Row] = []
    failures: list[str] = []
    for measure in measures:
        samples: dict[str, list[Figures]] = {contestant.name: [] for contestant in contestants}
        for turn in range(scale.rounds if measure.repeated else 1):
            # Rotated, so that nobody always runs behind the same neighbour.
            start = turn % len(contestants)
            for contestant in (*contestants[start:], *contestants[:start]):
                print(f"  {measure.name}, round {turn + 1}: {contestant.name}", file=sys.stderr, flush=True)
                try:
                    samples[contestant.name].append(await measure.take(arena, contestant, scale))
                except FailedError as exc:
                    failures.append(str(exc))
        rows += [
            Row(
                measure.name,
                figure,
                {name: [f[figure.name] for f in taken] for name, taken in samples.items()},
            )
            for figure in measure.figures
        ]
    return tuple(rows), tuple(failures)

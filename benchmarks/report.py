"""A tournament's outcome as a table for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.tournament import Outcome, Row

NAMED_PACKAGES = ("trio", "paramiko", "cryptography", "aioquic", "qh3", "pproxy", "asyncssh")


def show(outcome: Outcome) -> None:
    """Print *outcome* as a table: a row per figure, a column per contestant, then the ratios."""
    names = list(dict.fromkeys(name for row in outcome.rows for name in row.values))
    table = Table(
        title=f"{outcome.suite}: medians; ratios are {outcome.subject} ÷ peer, paired", title_justify="left"
    )
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for peer in outcome.peers:
        table.add_column(f"÷ {peer}", justify="right", style="bold")
    for row in outcome.rows:
        medians = [_number(row.median(name), row.figure.digits) for name in names]
        ratios = [_ratio(row, outcome.subject, peer) for peer in outcome.peers]
        table.add_row(f"{row.measure}, {row.figure.unit}", *medians, *ratios)
    # A table that is piped into a file is not cut to a terminal's width.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for note in outcome.notes:
        console.print(note, highlight=False)
    for name, reason in outcome.absent.items():
        console.print(f"absent: {name} ({reason})", highlight=False)
    for failure in outcome.failures:
        console.print(f"failed: {failure}", highlight=False)


def as_markdown(outcome: Outcome) -> str:
    """Return *outcome* as a Markdown table, as the page about benchmarks shows it."""
    names = list(dict.fromkeys(name for row in outcome.rows for name in row.values))
    heads = ["", *names, *(f"**÷ {peer}**" for peer in outcome.peers)]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for row in outcome.rows:
        cells = [f"{row.measure}, {row.figure.unit}"]
        cells += [_number(row.median(name), row.figure.digits) for name in names]
        cells += [f"**{_ratio(row, outcome.subject, peer)}**" for peer in outcome.peers]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _ratio(row: Row, subject: str, peer: str) -> str:
    ratio = row.ratio(subject, peer)
    return "-" if ratio is None else f"{ratio:.2f}"


def as_json(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Return *outcomes* and the machine that they were measured on, ready for `json.dump`."""
    return {"machine": machine(), "suites": [_suite(outcome) for outcome in outcomes]}


def machine() -> dict[str, object]:
    """Return what figures depend on: processors, kernel, and the versions of what was measured."""
    return {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version for name in NAMED_PACKAGES if (version := _version(name))},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _suite(outcome: Outcome) -> dict[str, object]:
    return {
        "suite": outcome.suite,
        "subject": outcome.subject,
        "absent": outcome.absent,
        "failures": outcome.failures,
        "notes": outcome.notes,
        "figures": [
            {
                "measure": row.measure,
                "figure": row.figure.name,
                "unit": row.figure.unit,
                "better": "more" if row.figure.more else "less",
                "medians": {name: row.median(name) for name in row.values},
                "values": row.values,
                "ratios": {peer: row.ratio(outcome.subject, peer) for peer in outcome.peers},
            }
            for row in outcome.rows
        ],
    }

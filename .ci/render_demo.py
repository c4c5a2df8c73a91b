"""Run the demo and write the picture of it that the README shows: python .ci/render_demo.py."""

from __future__ import annotations

import io
from pathlib import Path

import trio
from rich.console import Console

from session_proxy.cli.demo import HEADINGS, cells, line, summary
from session_proxy.lab.demo import DemoRow, run_demo

PICTURE = Path(__file__).parent.parent / "docs" / "demo.svg"
WIDTH = 76


def main() -> None:
    """Record what ``sproxy demo`` prints on a terminal."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)

    def show(row: DemoRow) -> None:
        console.print(line(cells(row)), style="green" if row.ok else "red", markup=False)

    console.print("$ sproxy demo", markup=False)
    console.print(line(HEADINGS), style="bold", markup=False)
    rows = trio.run(run_demo, show)
    console.print(summary(rows), style="bold", markup=False)
    console.save_svg(str(PICTURE), title="sproxy demo")


if __name__ == "__main__":
    main()

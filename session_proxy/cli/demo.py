"""``sproxy demo``: see every transport work, without an account and without configuration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from session_proxy.cli.options import JsonOption
from session_proxy.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from session_proxy.lab.demo import DemoRow

HEADINGS = ("transport", "", "set-up", "latency", "throughput", "checked", "")
WIDTHS = (10, 6, 10, 10, 12, 14, 0)


def demo(as_json: JsonOption = False) -> None:
    """Start a lab on loopback and move 64 MiB through every transport, checking every byte.

    The lab plays AWS Session Manager, an instance with its agent, an SSH server, an awg-server and a relay;
    everything goes through the SOCKS5 port of a proxy of its own. Exits 0 only if every transport passed.
    """
    import trio

    from session_proxy.lab.demo import run_demo

    if as_json:
        rows = trio.run(run_demo, _show_nothing)
        typer.echo(json.dumps([row.as_json() for row in rows], indent=2))
    else:
        rows = _run_for_people()
    if not rows or not all(row.ok for row in rows):
        raise typer.Exit(ExitCode.FAILURE)


def _show_nothing(_row: DemoRow) -> None:
    pass


def _run_for_people() -> list[DemoRow]:
    import trio
    from rich.console import Console

    from session_proxy.lab.demo import run_demo

    # Rich leaves colour out where there is no terminal, and where NO_COLOR is set.
    console = Console(highlight=False, soft_wrap=True)
    console.print(line(HEADINGS), style="bold", markup=False)

    def show(row: DemoRow) -> None:
        console.print(line(cells(row)), style="green" if row.ok else "red", markup=False)

    rows = trio.run(run_demo, show)
    console.print(summary(rows), style="bold", markup=False)
    return rows


def cells(row: DemoRow) -> tuple[str, ...]:
    """Return *row* as a person reads it."""
    return (
        row.transport,
        "ok" if row.ok else "FAILED",
        "-" if row.setup is None else f"{row.setup * 1e3:.1f} ms",
        "-" if row.latency is None else f"{row.latency * 1e3:.2f} ms",
        "-" if row.rate is None else f"{row.rate / 1e6:.1f} MB/s",
        f"{row.bytes:,} B",
        row.error,
    )


def line(texts: Iterable[str]) -> str:
    """Return *texts* in columns: words to the left, figures to the right."""
    padded = [
        f"{text:<{width}}" if index < 2 or not width else f"{text:>{width}}"
        for index, (text, width) in enumerate(zip(texts, WIDTHS, strict=True))
    ]
    return "  ".join(padded).rstrip()


def summary(rows: list[DemoRow]) -> str:
    """Return the last line: did all pass?"""
    failed = [row.transport for row in rows if not row.ok]
    if failed:
        return f"failed: {', '.join(failed)}"
    checked = sum(row.bytes for row in rows)
    return f"all {len(rows)} transports passed: {checked:,} bytes, every one compared"

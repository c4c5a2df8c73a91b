"""The reference of the command line is made from the commands, and current."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import typer.core
import typer.main

from session_proxy.cli.main import app
from session_proxy.cli.reference import Parameter, cli_reference, describe


class Pace(enum.StrEnum):
    """How to go."""

    WALK = "walk"
    RUN = "run"


def move(
    where: Annotated[Path, typer.Argument(help="The goal.")],
    how: Annotated[Pace, typer.Option(help="The pace.", envvar="PACE")] = Pace.WALK,
    far: Annotated[int | None, typer.Option("--how-far", help="Metres.")] = None,
    quiet: Annotated[bool, typer.Option(help="Say\nnothing.")] = False,
    back: Annotated[Path | None, typer.Argument(metavar="HOME", help="And back.")] = None,
) -> None:
    """Move."""


def test_parameters_are_described_as_one_writes_them() -> None:
    assert list(describe(move)) == [
        Parameter("WHERE", False, "The goal."),
        Parameter("--how walk\\|run", True, "The pace. Default: `walk`, or the variable `PACE`."),
        Parameter("--how-far N", True, "Metres."),
        Parameter("--quiet", True, "Say nothing."),
        Parameter("[HOME]", False, "And back."),
    ]


def names_of(group: typer.core.TyperGroup) -> Iterator[str]:
    """Yield the commands, groups after all others."""
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from (f"{name} {inner}" for inner in names_of(command))
        else:
            yield name


def test_the_page_has_the_commands_by_the_names_that_one_types() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    lines = list(cli_reference(app))

    assert [line for line in lines if line.startswith("## ")] == [
        f"## sproxy {name}" for name in names_of(group)
    ]
    assert "## sproxy relay-audit verify" in lines
    assert "sproxy awg-server [OPTION]… FILE" in lines


def test_the_page_is_current() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"

    assert page.read_text(encoding="utf-8") == "\n".join(cli_reference(app)) + "\n"

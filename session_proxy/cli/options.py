"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from session_proxy.errors import InvalidTargetError, UnreadableFileError
from session_proxy.observability.log_settings import LogFormat, LogLevel

# Every path is readable=False: whoever opens the file says in one line what is wrong with it, and what to do; Typer's
# own check is a wrong command line to it.
ProfileArgument = Annotated[
    Path | None,
    typer.Argument(
        readable=False,
        metavar="PROFILE",
        help="The profile; absent: ./config.toml or .yaml, then that of $XDG_CONFIG_HOME/session-proxy.",
        show_default=False,
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="The name of the control socket.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LogFormatOption = Annotated[LogFormat, typer.Option(help="Log as lines of text or of JSON.")]


def wrong_target(error: InvalidTargetError, option: str) -> typer.BadParameter:
    """Return what is said of an *option*, or argument, that should be a ``HOST:PORT``."""
    return typer.BadParameter(f"{error.reason}; {error.fix or 'write HOST:PORT'}", param_hint=option)


@contextmanager
def open_given(file: Path) -> Generator[BinaryIO]:
    """Have *file* open for a block that reads it, and does nothing else that could fail so.

    Raises:
      UnreadableFileError: that cannot be done.

    """
    try:
        with file.open("rb") as source:
            yield source
    except OSError as exc:
        fix = "make it readable for you" if isinstance(exc, PermissionError) else "check the path"
        reason = (exc.strerror or str(exc)).lower()
        raise UnreadableFileError(f"{file}: cannot be read: {reason}; {fix}") from exc


def read_level(text: str) -> LogLevel:
    """Return the level that *text* names, in capitals or not; many programs' variable LOG_LEVEL says WARN."""
    word = text.strip().lower()
    try:
        return LogLevel("warning" if word == "warn" else word)
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r} is no level; write {', '.join(LogLevel)}") from exc


def complete_level(incomplete: str) -> list[str]:
    """Return the levels that begin with *incomplete*."""
    return [level for level in LogLevel if level.startswith(incomplete.lower())]


LogLevelOption = Annotated[
    LogLevel,
    typer.Option(
        parser=read_level,
        autocompletion=complete_level,
        metavar="|".join(LogLevel),
        envvar="LOG_LEVEL",
        help="The least important lines to log.",
    ),
]

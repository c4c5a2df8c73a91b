"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from session_proxy.observability.log_settings import LogFormat, LogLevel

ProfileArgument = Annotated[
    Path | None,
    typer.Argument(
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
LogLevelOption = Annotated[
    LogLevel, typer.Option(envvar="LOG_LEVEL", case_sensitive=False, help="The least important lines to log.")
]

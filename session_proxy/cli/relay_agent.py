"""``sproxy relay-agent``: offers services of this machine through a relay that it dials out to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from session_proxy.cli.options import LogFormatOption, LogLevelOption, NameOption
from session_proxy.observability.log_settings import LogFormat, LogLevel


def relay_agent(
    file: Annotated[Path, typer.Argument(readable=False, metavar="FILE", help="The agent.toml.")],
    name: NameOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Offer the services of a file to the clients of the same user, through a relay that is dialled from here.

    Nothing else of this machine can be reached. Signals are those of "sproxy run".
    """
    # Everything that is slow to import comes with this.
    from session_proxy.cli.daemons import log_settings, run_daemon
    from session_proxy.cli.relay_agent_composing import RelayAgentComposer

    composer = RelayAgentComposer(file=file, name=name)
    raise typer.Exit(run_daemon(composer, log_settings(log_format, log_level)))

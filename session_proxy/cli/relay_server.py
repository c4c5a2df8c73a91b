"""``sproxy relay-server``: the public server that joins clients to agents behind NAT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from session_proxy.cli.options import LogFormatOption, LogLevelOption, NameOption
from session_proxy.observability.log_settings import LogFormat, LogLevel


def relay_server(
    file: Annotated[Path, typer.Argument(readable=False, metavar="FILE", help="The relay.toml.")],
    name: NameOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Join clients to the agents of the same user, over WebSockets that both open to here.

    Whoever shows no valid token gets health and readiness, and nothing else. On SIGTERM everybody is asked to go to
    another server, and the streams go on there. Signals are those of "sproxy run".
    """
    # Everything that is slow to import comes with this.
    from session_proxy.cli.daemons import log_settings, run_daemon
    from session_proxy.cli.relay_server_composing import RelayServerComposer

    settings = log_settings(log_format, log_level)
    composer = RelayServerComposer(file=file, name=name, log_settings=settings)
    raise typer.Exit(run_daemon(composer, settings))

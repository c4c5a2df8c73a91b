"""``sproxy awg-server``: the far end of upstreams of kind awg."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from session_proxy.cli.options import LogFormatOption, LogLevelOption, NameOption
from session_proxy.observability.log_settings import LogFormat, LogLevel


def awg_server(
    file: Annotated[Path, typer.Argument(readable=False, metavar="FILE", help="The server.toml.")],
    name: NameOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Serve the peers of a file: open connections for them to where its policy allows.

    Whoever is no peer gets no answer. With LOG_LEVEL=debug the log tells what each datagram that is not let in
    hints at. Signals are those of "sproxy run".
    """
    # Everything that is slow to import comes with this.
    from session_proxy.cli.awg_composing import ServerComposer
    from session_proxy.cli.daemons import log_settings, run_daemon

    composer = ServerComposer(file=file, name=name)
    raise typer.Exit(run_daemon(composer, log_settings(log_format, log_level)))

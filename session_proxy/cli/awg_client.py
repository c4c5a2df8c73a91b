"""``sproxy awg-client``: a local proxy port, straight into one server of kind awg."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from session_proxy.cli.options import LogFormatOption, LogLevelOption, NameOption
from session_proxy.observability.log_settings import LogFormat, LogLevel


def awg_client(
    file: Annotated[Path, typer.Argument(readable=False, metavar="FILE", help="The client.toml.")],
    name: NameOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Serve a local SOCKS5 and HTTP proxy port whose connections all go through one sproxy awg-server.

    Who uses the port has to present the user and the password of the file, always. The port is served at
    once, and the session comes up beside it, as often as it takes. Signals are those of "sproxy run".
    """
    # Everything that is slow to import comes with this.
    from session_proxy.cli.awg_composing import ClientComposer
    from session_proxy.cli.daemons import log_settings, run_daemon

    composer = ClientComposer(file=file, name=name)
    raise typer.Exit(run_daemon(composer, log_settings(log_format, log_level)))

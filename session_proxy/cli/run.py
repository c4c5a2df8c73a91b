"""``sproxy run``: serve a profile, or one instance without a profile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import attrs
import typer

from session_proxy.cli.options import LogFormatOption, LogLevelOption, NameOption, ProfileArgument
from session_proxy.observability.log_settings import LogFormat, LogLevel


@attrs.frozen(kw_only=True)
class SingleUpstream:
    """What stands in for a profile on the command line."""

    instance: str
    user: str | None
    key: str | None
    aws_profile: str | None
    region: str | None


def run(
    profile: ProfileArgument = None,
    config: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="PROFILE", help="The same as the argument.", show_default=False),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Listen here, whatever the profile says.", show_default=False),
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(
            metavar="INSTANCE",
            help="No profile: everything goes through this instance (an id, tag:KEY=VALUE or name:NAME).",
            show_default=False,
        ),
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="With --instance: the SSH user.", show_default=False)
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="With --instance: the SSH key file.", show_default=False),
    ] = None,
    aws_profile: Annotated[
        str | None,
        typer.Option(metavar="PROFILE", help="With --instance: the AWS profile.", show_default=False),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(metavar="REGION", help="With --instance: the AWS region.", show_default=False),
    ] = None,
    name: NameOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Serve a profile until told to stop.

    Logs go to stderr; a line "ready" with the addresses says that clients are served. SIGTERM, Ctrl-C and
    "sproxy drain" let open connections finish first, for as long as the profile's limits.drain says; a second
    signal ends them. SIGHUP and "sproxy reload" take over a profile that was changed. SIGUSR1 writes the
    tree of tasks to stderr.
    """
    if profile is not None and config is not None and profile != config:
        raise typer.BadParameter("give the profile once: as the argument or as --config")
    file = profile or config
    single = None
    if instance is not None:
        if file is not None:
            raise typer.BadParameter("--instance does without a profile; give one of the two")
        single = SingleUpstream(instance=instance, user=user, key=key, aws_profile=aws_profile, region=region)
    else:
        _refuse_alone({"--user": user, "--key": key, "--aws-profile": aws_profile, "--region": region})

    # Everything that is slow to import comes with this.
    from session_proxy.cli.daemons import log_settings, run_daemon
    from session_proxy.cli.proxying import ProxyComposer

    composer = ProxyComposer(file=file, single=single, listen=listen, name=name)
    raise typer.Exit(run_daemon(composer, log_settings(log_format, log_level)))


def _refuse_alone(options: Mapping[str, str | None]) -> None:
    """Raise where one of these *options*, which say more of an instance, stands without it."""
    if given := [option for option, value in options.items() if value is not None]:
        verb = "goes" if len(given) == 1 else "go"
        raise typer.BadParameter(f"{', '.join(given)} {verb} with --instance; a profile says it per upstream")

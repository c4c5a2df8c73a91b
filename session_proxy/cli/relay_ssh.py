"""``sproxy relay-ssh``: the ProxyCommand with which OpenSSH reaches an agent's SSH server."""

from __future__ import annotations

import os
from typing import Annotated

import attrs
import typer

from session_proxy.cli.relay_options import (
    CaOption,
    EndpointOption,
    ProfileOption,
    RelayOptions,
    TokenFileOption,
    UpstreamOption,
    check_name,
)


def relay_ssh(
    destination: Annotated[
        str,
        typer.Argument(
            metavar="[USER@]AGENT",
            help='The agent; "%r@%h" in a ProxyCommand. Who logs in is ssh\'s affair, so USER is passed over.',
        ),
    ],
    service: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which of the agent's services. Default: that of the upstream, which is ssh.",
            show_default=False,
        ),
    ] = None,
    profile: ProfileOption = None,
    upstream: UpstreamOption = None,
    endpoint: EndpointOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
) -> None:
    """Reach the SSH server of an agent: a ProxyCommand for ssh, scp, sftp, rsync and git.

    ssh -o ProxyCommand="sproxy relay-ssh %r@%h" me@nas

    It carries standard input and output to a service of the agent, end to end. The connection is mended when it
    breaks, and ssh notices nothing, for up to two minutes.
    """
    options = RelayOptions(profile, upstream, endpoint, token_file, ca)
    options.check()
    agent = destination.rpartition("@")[2]
    check_name(agent, "[USER@]AGENT")
    if service is not None:
        check_name(service, "--service")
    choice = options.choose(agent)
    if service is not None:
        choice = attrs.evolve(choice, upstream=attrs.evolve(choice.upstream, service=service))

    # Everything that is slow to import comes with these.
    import trio

    from session_proxy.supervision.relay_pipe import run_relay_pipe

    raise typer.Exit(trio.run(run_relay_pipe, choice, os.environ, _warn))


def _warn(text: str) -> None:
    typer.echo(f"sproxy: {text}", err=True)

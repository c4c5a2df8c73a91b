"""``sproxy awg-keygen``: a server and a client that fit each other."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from awg_obfs.protocol.presets import Preset
from session_proxy.cli.options import wrong_target
from session_proxy.profile.addresses import is_loopback
from session_proxy.profile.model import ListenAddress
from session_proxy.target import InvalidTargetError, Target

# Any port that needs no privilege would do.
HERE = "127.0.0.1:4443"


def awg_keygen(
    directory: Annotated[
        Path, typer.Argument(readable=False, metavar="DIR", help="Where the files go; it is made if need be.")
    ],
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help=f"Where the client finds the server. Default: {HERE}, on this machine."
        ),
    ] = HERE,
    preset: Annotated[Preset, typer.Option(help="What the first datagram looks like.")] = Preset.DNS,
) -> None:
    """Make keys and obfuscation for a server and a client: DIR/server.toml and DIR/client.toml.

    Both are new at every call, and only their owner may read them. Existing files are left alone: nothing is
    written then. The client's proxy port asks for a user and a password; client.toml has them. Printed is which
    file belongs on which machine, and the command to run there.
    """
    import os

    from awg_obfs.protocol.randomness import PooledRandomness
    from session_proxy.profile.awg_writing import new_pair
    from session_proxy.profile.private_files import make_folder, write_new

    try:
        target = Target.parse(endpoint)
    except InvalidTargetError as exc:
        raise wrong_target(exc, "--endpoint") from exc
    pair = new_pair(target, preset, PooledRandomness(os.urandom))
    server, client = directory / "server.toml", directory / "client.toml"
    make_folder(directory)
    write_new({server: pair.server, client: pair.client})
    for line in _next_steps(target, server, client):
        typer.echo(line)


def _next_steps(endpoint: Target, server: Path, client: Path) -> tuple[str, str]:
    """Return for each file which machine it belongs on, and the command to run there."""
    if is_loopback(ListenAddress(endpoint.host, endpoint.port)):
        alone = f"belongs on this machine, which alone finds {endpoint}; run"
        return (
            f"{server} {alone}: sproxy awg-server {shlex.quote(str(server))}",
            f"{client} {alone}: sproxy awg-client {shlex.quote(str(client))}",
        )
    return (
        f"{server} belongs on the server, {endpoint.host}; run there: sproxy awg-server {server.name}",
        f"{client} belongs on the client; run there: sproxy awg-client {client.name}",
    )

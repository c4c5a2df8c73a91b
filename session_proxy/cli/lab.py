"""``sproxy lab``: the embedded world for other programs, until it is interrupted."""

from __future__ import annotations

import getpass
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_proxy.cli.options import wrong_target
from session_proxy.errors import ExitCode, InvalidTargetError
from session_proxy.lab.faults import UnknownFaultError, describe_faults, parse_faults
from session_proxy.target import Target

if TYPE_CHECKING:
    from session_proxy.lab.world import LabSettings


DirOption = Annotated[
    Path,
    typer.Option("--dir", readable=False, metavar="DIR", help="Where the files go; it is made if need be."),
]
SshdOption = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Use this SSH server, not the embedded one.", show_default=False),
]
SshUserOption = Annotated[
    str | None, typer.Option(metavar="USER", help="Whom to log in as there.", show_default=False)
]
SshKeyOption = Annotated[
    Path | None,
    typer.Option(
        readable=False,
        metavar="FILE",
        help="The key to log in with; absent, ssh-agent's.",
        show_default=False,
    ),
]
PaceOption = Annotated[
    bool,
    typer.Option(
        "--pace", help="Be as slow as AWS's agent, which sleeps 1 ms after every 1024 bytes: 0.62 MB/s."
    ),
]
PayloadOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=131072,
        metavar="N",
        help="The agent's bytes per frame; absent, 1024 with --pace and 65536 without.",
        show_default=False,
    ),
]
FaultOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Do this wrong; repeat it for more.", show_default=False),
]


def fault_table() -> str:
    """Return the faults as the last part of ``sproxy lab --help``; the marks keep click from filling lines."""
    rows = [(f"{row.name}={row.value}", row.says) for row in describe_faults()]
    width = max(len(name) for name, _ in rows)
    lines = "\n".join(f"  {name:<{width}}  {says}" for name, says in rows)
    return f"Faults (N: every N-th, 0 is never; CODE: one of AWS's error codes):\n\n\b\n{lines}"


def lab(
    directory: DirOption,
    sshd: SshdOption = None,
    ssh_user: SshUserOption = None,
    ssh_key: SshKeyOption = None,
    pace: PaceOption = False,
    payload: PayloadOption = None,
    fault: FaultOption = None,
) -> None:
    """Play AWS Session Manager, its agents, an SSH server, an awg-server, a relay and targets, all on loopback.

    Writes DIR/profile.toml for "sproxy run", DIR/client.toml for "sproxy awg-client", DIR/env with the variables
    for boto3, the AWS CLI and AWS's session-manager-plugin, and DIR/ready.json with every address; then prints
    "ready" and goes on until it is interrupted. The files remain.
    """
    try:
        faults = parse_faults(fault or ())
        server = None if sshd is None else Target.parse(sshd)
    except UnknownFaultError as exc:
        raise typer.BadParameter(str(exc)) from exc
    except InvalidTargetError as exc:
        raise wrong_target(exc, "--sshd") from exc
    import trio

    from session_proxy.lab.world import LabSettings

    settings = LabSettings(
        pace=pace,
        payload=payload,
        sshd=server,
        ssh_user=ssh_user or (getpass.getuser() if server else "lab"),
        ssh_key=ssh_key,
        faults=faults,
    )
    if trio.run(_serve, directory, settings) == signal.SIGINT:
        raise typer.Exit(ExitCode.INTERRUPTED)


async def _serve(directory: Path, settings: LabSettings) -> int:
    """Serve until a signal comes, and return which."""
    import trio

    from session_proxy.lab.world import open_world

    # Open for as long as the world is: a second signal must not cut its closing, which is bounded, short.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_world(directory, settings):
            typer.echo("ready")
            return await anext(aiter(signals))

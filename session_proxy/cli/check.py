"""``sproxy check``: is a profile, or the file of a server, client or agent, good, and if not, what has to change?"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import attrs
import typer

from session_proxy.cli.options import JsonOption, ProfileArgument
from session_proxy.errors import ExitCode, ProfileError
from session_proxy.profile import relay_summary
from session_proxy.profile.awg_loading import load_awg_file
from session_proxy.profile.awg_model import AwgClient, AwgServer
from session_proxy.profile.awg_summary import server_summary, session_summary
from session_proxy.profile.loading import load_profile
from session_proxy.profile.model import Profile
from session_proxy.profile.relay_loading import load_relay_file
from session_proxy.profile.relay_model import RelayAgent, RelayServer
from session_proxy.supervision.places import state_dir
from session_proxy.supervision.state_folder import find_audit_problem, find_problem

Loaded = Profile | AwgServer | AwgClient | RelayServer | RelayAgent


def check(profile: ProfileArgument = None, as_json: JsonOption = False) -> None:
    """Check a profile and report every problem in it: exit 0 if it is good, 78 if not.

    The files of awg-server, awg-client, relay-server and relay-agent are known by their keys. Of a server, or an
    agent, the state folder is tried, too; nothing is left there.
    """
    warnings: list[str] = []
    error: ProfileError | None = None
    loaded: Loaded | None = None
    try:
        loaded = load_any(profile, warnings.append)
    except ProfileError as exc:
        error = exc
    file = profile
    if error is not None:
        file = error.file
    elif isinstance(loaded, Profile):
        file = loaded.file
    if as_json:
        typer.echo(json.dumps(_report(file, error, warnings), indent=2))
    else:
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)
        typer.echo(str(error) if loaded is None else f"{file}: good\n{_summary(loaded)}")
    raise typer.Exit(ExitCode.CONFIGURATION if error is not None else ExitCode.OK)


def load_any(file: Path | None, warn: Callable[[str], None]) -> Loaded:
    """Return what *file* says, of whichever kind it is; what a server, or an agent, is to
    write to is tried, too.

    Raises:
      ProfileError: it cannot be used.

    """
    if file is None:
        return load_profile(file, environ=os.environ, warn=warn)
    loaded = load_awg_file(file, environ=os.environ, warn=warn)
    if loaded is None:
        loaded = load_relay_file(file, environ=os.environ, warn=warn)
    if isinstance(loaded, AwgServer | RelayServer | RelayAgent):
        audit = loaded.audit if isinstance(loaded, RelayServer) else None
        problems = [
            find_problem(loaded.state or state_dir(os.environ)),
            None if audit is None else find_audit_problem(audit.file),
        ]
        if any(problems):
            raise ProfileError(file, [problem for problem in problems if problem is not None])
    return load_profile(file, environ=os.environ, warn=warn) if loaded is None else loaded


def _report(file: Path | None, error: ProfileError | None, warnings: list[str]) -> dict[str, object]:
    return {
        "file": None if file is None else str(file),
        "ok": error is None,
        "problems": [attrs.asdict(problem) for problem in (error.problems if error is not None else ())],
        "warnings": warnings,
    }


def _summary(loaded: Loaded) -> str:
    match loaded:
        case AwgServer():
            fields = server_summary(loaded)
        case RelayServer():
            fields = relay_summary.server_summary(loaded)
        case RelayAgent():
            fields = relay_summary.agent_summary(loaded)
        case AwgClient():
            listen = ", ".join(map(str, loaded.listen))
            fields = {"listen": listen, **session_summary(loaded.upstream())}
        case Profile():
            fields = _profile_summary(loaded)
    width = max(map(len, fields))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in fields.items())


def _profile_summary(profile: Profile) -> dict[str, object]:
    upstreams = (
        f"{name} ({upstream.kind}, {profile.startup_of(name)})"
        for name, upstream in profile.upstreams.items()
    )
    return {
        "listen": ", ".join(map(str, profile.listen)),
        "upstreams": ", ".join(upstreams) or "none",
        "routes": f"{len(profile.routes)}, else {profile.default}",
    }

"""``sproxy check``: is a profile, or a file of kind awg, good, and if not, what has to change?"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import attrs
import typer

from session_proxy.cli.options import JsonOption, ProfileArgument
from session_proxy.errors import ExitCode, ProfileError
from session_proxy.profile.awg_loading import load_awg_file
from session_proxy.profile.awg_model import AwgClient, AwgServer
from session_proxy.profile.awg_summary import server_summary, session_summary
from session_proxy.profile.loading import load_profile
from session_proxy.profile.model import Profile
from session_proxy.supervision.places import state_dir
from session_proxy.supervision.state_folder import find_problem


def check(profile: ProfileArgument = None, as_json: JsonOption = False) -> None:
    """Check a profile and report every problem in it: exit 0 if it is good, 78 if not.

    A server.toml or client.toml of "sproxy awg-server" and "sproxy awg-client" is known by its keys. Of a server,
    the state folder is tried, too; nothing is left there.
    """
    warnings: list[str] = []
    error: ProfileError | None = None
    loaded: Profile | AwgServer | AwgClient | None = None
    try:
        loaded = _load(profile, warnings.append)
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


def _load(file: Path | None, warn: Callable[[str], None]) -> Profile | AwgServer | AwgClient:
    found = None if file is None else load_awg_file(file, environ=os.environ, warn=warn)
    if isinstance(found, AwgServer):
        problem = find_problem(found.state or state_dir(os.environ))
        if problem is not None:
            raise ProfileError(file, [problem])
    return load_profile(file, environ=os.environ, warn=warn) if found is None else found


def _report(file: Path | None, error: ProfileError | None, warnings: list[str]) -> dict[str, object]:
    return {
        "file": None if file is None else str(file),
        "ok": error is None,
        "problems": [attrs.asdict(problem) for problem in (error.problems if error is not None else ())],
        "warnings": warnings,
    }


def _summary(loaded: Profile | AwgServer | AwgClient) -> str:
    match loaded:
        case AwgServer():
            fields = server_summary(loaded)
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

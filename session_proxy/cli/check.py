"""``sproxy check``: is a profile good, and if not, what has to change?"""

from __future__ import annotations

import json
import os

import attrs
import typer

from session_proxy.cli.options import JsonOption, ProfileArgument
from session_proxy.errors import ExitCode, ProfileError
from session_proxy.profile.loading import load_profile
from session_proxy.profile.model import Profile


def check(profile: ProfileArgument = None, as_json: JsonOption = False) -> None:
    """Check a profile and report every problem in it: exit 0 if it is good, 78 if not."""
    warnings: list[str] = []
    error: ProfileError | None = None
    loaded: Profile | None = None
    try:
        loaded = load_profile(profile, environ=os.environ, warn=warnings.append)
    except ProfileError as exc:
        error = exc
    if as_json:
        typer.echo(json.dumps(_report(loaded, error, warnings), indent=2))
    else:
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)
        typer.echo(str(error) if loaded is None else _summary(loaded))
    raise typer.Exit(ExitCode.CONFIGURATION if error is not None else ExitCode.OK)


def _report(profile: Profile | None, error: ProfileError | None, warnings: list[str]) -> dict[str, object]:
    file = error.file if error is not None else profile.file if profile is not None else None
    return {
        "file": None if file is None else str(file),
        "ok": error is None,
        "problems": [attrs.asdict(problem) for problem in (error.problems if error is not None else ())],
        "warnings": warnings,
    }


def _summary(profile: Profile) -> str:
    upstreams = (
        f"{name} ({upstream.kind}, {profile.startup_of(name)})"
        for name, upstream in profile.upstreams.items()
    )
    return "\n".join(
        [
            f"{profile.file}: good",
            f"  listen     {', '.join(map(str, profile.listen))}",
            f"  upstreams  {', '.join(upstreams) or 'none'}",
            f"  routes     {len(profile.routes)}, else {profile.default}",
        ]
    )

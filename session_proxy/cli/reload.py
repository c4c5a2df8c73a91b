"""``sproxy reload``: have a running proxy take over its file."""

from __future__ import annotations

import json

import typer

from session_proxy.cli.options import JsonOption, NameOption, ProfileArgument


def reload(profile: ProfileArgument = None, name: NameOption = None, as_json: JsonOption = False) -> None:
    """Have a running sproxy take over what its file says now.

    All of it, or nothing: only what changed is exchanged, connections that are open go on, and a file that
    is wrong, or a required upstream that does not work, changes nothing. Prints what changed, and exits with
    0 then, else with the code that "sproxy run" would have had: 78 for a wrong file, with every problem. Which
    one is meant is said as to "sproxy status".
    """
    from session_proxy.cli.asking import ask_running, structure
    from session_proxy.errors import ExitCode, ReloadError
    from session_proxy.supervision.reload import LIMIT, ReloadReport

    # It has some time more, to say that it took too long.
    answer = ask_running(profile, name, "POST", "/reload", LIMIT + 15.0)
    report = structure(answer, ReloadReport)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    if not report.done:
        if as_json:
            raise typer.Exit(report.exit_code)
        raise ReloadError("\n".join(report.problems), ExitCode(report.exit_code))
    if not as_json:
        typer.echo("\n".join(report.changes or ["nothing changed"]))

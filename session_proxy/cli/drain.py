"""``sproxy drain``: let a running proxy end gracefully."""

from __future__ import annotations

import typer

from session_proxy.cli.options import NameOption, ProfileArgument


def drain(profile: ProfileArgument = None, name: NameOption = None) -> None:
    """Let a running sproxy finish and end.

    It accepts nothing new and finishes what is open; what is still open after the profile's limits.drain is
    cut. This command returns at once. Which one is meant is said as to "sproxy status".
    """
    from session_proxy.cli.asking import ask_running

    answer = ask_running(profile, name, "POST", "/drain")
    typer.echo(f"draining; what is open has {answer['limit']} s to finish")

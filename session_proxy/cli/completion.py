"""``sproxy completion``: a script that makes a shell complete commands, options and files."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated

import typer

# Typer exports neither under a public name; its own --show-completion is made of them.
from typer.completion import (
    completion_init,  # pyright: ignore[reportPrivateImportUsage]
    get_completion_script,  # pyright: ignore[reportPrivateImportUsage]
)

PROGRAM = "sproxy"
VARIABLE = "_SPROXY_COMPLETE"


class Shell(enum.StrEnum):
    """The shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print a completion script for a shell.

    bash: eval "$(sproxy completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc, below compinit.
    fish: sproxy completion fish > ~/.config/fish/completions/sproxy.fish
    """
    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell.value))


def prepare_completion(environ: Mapping[str, str]) -> None:
    """Let the script ask this program what fits, where it is a script that asks."""
    if VARIABLE in environ:
        completion_init()

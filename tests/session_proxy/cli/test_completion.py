"""The scripts, tried in the shells that are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from session_proxy.cli.completion import Shell
from session_proxy.cli.main import app
from tests.support.sproxy import PROGRAM


def script(shell: Shell) -> str:
    result = CliRunner().invoke(app, ["completion", shell.value])
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("shell", list(Shell))
def test_every_shell_has_its_script(shell: Shell) -> None:
    assert "_SPROXY_COMPLETE" in script(shell)


def test_an_unknown_shell_is_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["completion", "tcsh"])

    assert result.exit_code == 2
    assert "tcsh" in result.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("sproxy run --log-f", {"--log-format"}),
        ("sproxy run --log-format ", {"text", "json"}),
        ("sproxy run --log-level w", {"warning"}),
        ("sproxy doctor --t", {"--target"}),
        ("sproxy relay-t", {"relay-token"}),
        ("sproxy relay-audit v", {"verify"}),
        ("sproxy relay-token --algorithm E", {"EdDSA"}),
    ],
)
def test_bash_completes_commands_options_and_values(words: str, completed: set[str]) -> None:
    press_tab = (
        f"{script(Shell.BASH)}\n"
        'read -ra COMP_WORDS <<< "$LINE"; [[ $LINE == *" " ]] && COMP_WORDS+=("")\n'
        "COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))\n"
        '_sproxy_completion sproxy; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environ = {**os.environ, "LINE": words, "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"}

    done = subprocess.run(
        ["bash", "-c", press_tab], capture_output=True, text=True, check=True, env=environ, timeout=60
    )

    assert set(done.stdout.split()) == completed
    assert done.stderr == ""

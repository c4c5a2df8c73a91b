from __future__ import annotations

import pytest
from typer.testing import CliRunner

from session_proxy.cli.main import app


@pytest.mark.parametrize("command", ["run", "status", "drain"])
def test_commands_that_share_an_option_say_the_same_of_it(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], terminal_width=200).output

    assert "The profile; absent: ./config.toml or .yaml" in shown
    assert "The name of the control socket." in shown

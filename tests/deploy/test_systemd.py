"""The units of systemd start commands that there are, and mean what these mean."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from session_proxy.cli.main import app
from session_proxy.errors import ExitCode

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))


def settings_of(unit: Path) -> dict[str, str]:
    """Return the last value of each key; none of what matters here comes twice."""
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def test_there_are_units() -> None:
    assert [unit.stem for unit in UNITS] == ["sproxy-relay-agent", "sproxy-relay-server"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_a_command_as_it_wants_to_be_run(unit: Path) -> None:
    settings = settings_of(unit)
    program, command, file, *options = shlex.split(settings["ExecStart"])
    assert Path(program).name == "sproxy"
    assert f"sproxy-{command}" == unit.stem
    shown = CliRunner().invoke(app, [command, "--help"]).stdout
    assert file.startswith("/etc/session-proxy/")
    assert all(option in shown for option in options if option.startswith("--"))
    assert int(settings["RestartPreventExitStatus"]) == ExitCode.CONFIGURATION
    assert settings["Restart"] == "always"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_that_stops_leaves_the_others_control_socket(unit: Path) -> None:
    settings = settings_of(unit)
    assert settings["RuntimeDirectory"] == "session-proxy"
    assert settings["RuntimeDirectoryMode"] == "0700"
    assert settings["RuntimeDirectoryPreserve"] == "yes"

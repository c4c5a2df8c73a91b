"""What ``sproxy relay-server`` makes of its arguments, up to the point where it would run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from session_proxy.cli import daemons
from session_proxy.cli.main import app
from session_proxy.cli.relay_server_composing import RelayServerComposer
from session_proxy.errors import ExitCode
from session_proxy.observability.log_settings import LogFormat, LogLevel, LogSettings


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RelayServerComposer, LogSettings]]:
    """What would have been run."""
    calls: list[tuple[RelayServerComposer, LogSettings]] = []

    def run_daemon(composer: RelayServerComposer, settings: LogSettings) -> ExitCode:
        calls.append((composer, settings))
        return ExitCode.INTERRUPTED

    monkeypatch.setattr(daemons, "run_daemon", run_daemon)
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    return calls


def test_its_file_is_run(ran: list[tuple[RelayServerComposer, LogSettings]]) -> None:
    result = CliRunner().invoke(app, ["relay-server", "a.toml", "--name", "n", "--log-format", "json"])

    [(composer, settings)] = ran
    assert isinstance(composer, RelayServerComposer)
    assert (composer.file, composer.name, composer.log_settings) == (Path("a.toml"), "n", settings)
    assert settings == LogSettings(log_format=LogFormat.JSON, level=LogLevel.INFO)
    assert result.exit_code == 130, "what the daemon ends with"


def test_without_a_file_it_says_how_it_is_used(ran: list[tuple[RelayServerComposer, LogSettings]]) -> None:
    result = CliRunner().invoke(app, ["relay-server"])

    assert result.exit_code == 2
    assert "FILE" in result.stderr
    assert ran == []

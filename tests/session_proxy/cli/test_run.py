"""What ``sproxy run`` makes of its arguments, up to the point where it would run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from session_proxy.cli import daemons
from session_proxy.cli.main import app
from session_proxy.cli.proxying import ProxyComposer
from session_proxy.cli.run import SingleUpstream
from session_proxy.errors import ExitCode
from session_proxy.observability.log_settings import LogFormat, LogLevel, LogSettings


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ProxyComposer, LogSettings]]:
    """What would have been run."""
    calls: list[tuple[ProxyComposer, LogSettings]] = []

    def run_daemon(composer: ProxyComposer, settings: LogSettings) -> ExitCode:
        calls.append((composer, settings))
        return ExitCode.NOT_PERMITTED

    monkeypatch.setattr(daemons, "run_daemon", run_daemon)
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    return calls


@pytest.mark.parametrize(
    "arguments",
    [["a.toml"], ["--config", "a.toml"], ["a.toml", "--config", "a.toml"], ["a.toml", "--name", "n"]],
)
def test_a_profile_is_named_either_way(
    ran: list[tuple[ProxyComposer, LogSettings]], arguments: list[str]
) -> None:
    result = CliRunner().invoke(app, ["run", *arguments])

    [(composer, _)] = ran
    assert (composer.file, composer.single) == (Path("a.toml"), None)
    assert composer.name == ("n" if "--name" in arguments else None)
    assert result.exit_code == 77, "what the daemon ends with"


def test_one_instance_needs_no_profile(ran: list[tuple[ProxyComposer, LogSettings]]) -> None:
    options = "--instance i-1 --user me --key k.pem --aws-profile p --region r --listen 127.0.0.1:1"

    CliRunner().invoke(app, ["run", *options.split()])

    [(composer, _)] = ran
    assert composer.single == SingleUpstream(
        instance="i-1", user="me", key="k.pem", aws_profile="p", region="r"
    )
    assert (composer.file, composer.listen) == (None, "127.0.0.1:1")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("a.toml --config b.toml", "give the profile once"),
        ("a.toml --instance i-1", "--instance does without a profile"),
        ("a.toml --user me --region r", "--user, --region go with --instance"),
        ("--key k.pem", "--key goes with --instance"),
        ("--log-level loud", "'loud' is no level; write debug, info, warning, error"),
        ("--log-format xml", "xml"),
        ("a.toml b.toml", "b.toml"),
        ("--frobnicate", "--frobnicate"),
    ],
)
def test_contradictions_are_usage_errors(
    ran: list[tuple[ProxyComposer, LogSettings]], arguments: str, says: str
) -> None:
    result = CliRunner().invoke(app, ["run", *arguments.split()])

    assert result.exit_code == 2
    assert says in result.stderr
    assert ran == []


@pytest.mark.parametrize(
    ("environ", "arguments", "level"),
    [
        ({}, [], LogLevel.INFO),
        ({"LOG_LEVEL": "WARNING"}, [], LogLevel.WARNING),
        ({"LOG_LEVEL": "WARN"}, [], LogLevel.WARNING),
        ({"LOG_LEVEL": "Error"}, ["--log-level", "warn"], LogLevel.WARNING),
        ({"LOG_LEVEL": "debug"}, ["--log-level", "error"], LogLevel.ERROR),
    ],
)
def test_the_log_level_is_said_by_option_then_variable(
    ran: list[tuple[ProxyComposer, LogSettings]],
    environ: dict[str, str],
    arguments: list[str],
    level: LogLevel,
) -> None:
    CliRunner().invoke(app, ["run", "--log-format", "json", *arguments], env=environ)

    [(_, settings)] = ran
    assert settings == LogSettings(log_format=LogFormat.JSON, level=level)

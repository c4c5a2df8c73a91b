"""The command line of ``sproxy relay-ssh``; `test_relay_pipe.py` runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from session_proxy.cli.main import app
from session_proxy.profile.relay_choice import RelayChoice
from session_proxy.supervision import relay_pipe
from tests.support.relay_tokens import make_token

# What would make each ssh wait.
SLOW = ("paramiko", "boto3", "botocore", "aioquic", "qh3", "structlog", "prometheus_client", "rich.console")


def run(folder: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[RelayChoice]]:
    meant: list[RelayChoice] = []

    async def note(choice: RelayChoice, _environ: object, _warn: object) -> int:
        meant.append(choice)
        return 7

    monkeypatch.setattr(relay_pipe, "run_relay_pipe", note)
    (folder / "token").write_text(make_token("alice"))
    options = ["--endpoint", "wss://a.example.com", "--token-file", str(folder / "token")]
    return CliRunner().invoke(app, ["relay-ssh", *options, *arguments]).exit_code, meant


@pytest.mark.parametrize("written", ["nas", "me@nas", "me@corp@nas"])
def test_the_agent_is_what_stands_behind_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    code, [choice] = run(tmp_path, written, monkeypatch=monkeypatch)
    assert code == 7
    assert (choice.upstream.agent, choice.upstream.service) == ("nas", "ssh")


def test_another_service_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, [choice] = run(tmp_path, "--service", "sshd", "nas", monkeypatch=monkeypatch)
    assert choice.upstream.service == "sshd"


def test_a_service_that_cannot_be_is_a_wrong_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, "--service", "a/b", "nas", monkeypatch=monkeypatch) == (2, [])


def test_it_imports_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys, session_proxy.cli.main, session_proxy.supervision.relay_pipe, session_proxy.profile.loading;"
        f"print(*[name for name in {SLOW!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

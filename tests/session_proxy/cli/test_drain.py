from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from session_proxy.cli import asking
from session_proxy.cli.main import app


def test_a_drain_is_asked_for_and_its_limit_told(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    def ask_running(*arguments: object) -> dict[str, object]:
        calls.append(arguments)
        return {"state": "draining", "limit": 10.0}

    monkeypatch.setattr(asking, "ask_running", ask_running)

    result = CliRunner().invoke(app, ["drain", "dev.toml"])

    assert calls == [(Path("dev.toml"), None, "POST", "/drain")]
    assert result.stdout == "draining; what is open has 10.0 s to finish\n"

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from session_proxy.cli import asking
from session_proxy.cli.main import app
from session_proxy.errors import ControlError, ExitCode, ReloadError
from session_proxy.supervision.reload import LIMIT

DONE = {"done": True, "changes": ["changed: routes", "upstream dev: new"], "problems": [], "exit_code": 0}
NOTHING: dict[str, object] = {"done": True, "changes": [], "problems": [], "exit_code": 0}
WRONG = {"done": False, "changes": [], "problems": ["a.toml: one", "a.toml: two"], "exit_code": 78}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the running one answers; first the arguments of the question are put there."""
    answers: list[object] = []

    def ask_running(*arguments: object) -> object:
        answer = answers.pop()
        answers.append(arguments)
        return answer

    monkeypatch.setattr(asking, "ask_running", ask_running)
    return answers


def test_what_changed_is_told(answers: list[object]) -> None:
    answers.append(DONE)

    result = CliRunner().invoke(app, ["reload", "dev.toml"])

    assert result.stdout == "changed: routes\nupstream dev: new\n"
    assert result.exit_code == 0
    assert answers == [(Path("dev.toml"), None, "POST", "/reload", LIMIT + 15)]


def test_that_nothing_changed_is_told(answers: list[object]) -> None:
    answers.append(NOTHING)

    assert CliRunner().invoke(app, ["reload", "--name", "dev"]).stdout == "nothing changed\n"


def test_every_problem_is_told(answers: list[object]) -> None:
    answers.append(WRONG)

    result = CliRunner().invoke(app, ["reload"])

    assert isinstance(result.exception, ReloadError)
    assert str(result.exception) == "a.toml: one\na.toml: two"
    assert result.exception.exit_code is ExitCode.CONFIGURATION
    assert result.stdout == ""


@pytest.mark.parametrize(("answer", "code"), [(DONE, 0), (WRONG, 78)])
def test_as_json_it_is_what_was_answered(answers: list[object], answer: object, code: int) -> None:
    answers.append(answer)

    result = CliRunner().invoke(app, ["reload", "--json"])

    assert json.loads(result.stdout) == answer
    assert result.exit_code == code


def test_one_that_knows_no_reload_is_of_another_version(answers: list[object]) -> None:
    answers.append({"state": "draining"})

    assert isinstance(CliRunner().invoke(app, ["reload"]).exception, ControlError)

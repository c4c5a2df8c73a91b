from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import typer.testing

from session_proxy.cli.demo import cells, line, summary
from session_proxy.cli.main import app
from session_proxy.lab import demo
from session_proxy.lab.demo import DemoRow

PASSED = DemoRow(transport="direct", ok=True, setup=0.0021, latency=0.00023, rate=173.6e6, bytes=67_108_958)
FAILED = DemoRow(transport="ssm", setup=0.5, bytes=94, error="wrong bytes after position 7")


def pretend(monkeypatch: pytest.MonkeyPatch, *rows: DemoRow) -> None:
    async def run(show: Callable[[DemoRow], None]) -> list[DemoRow]:
        for row in rows:
            show(row)
        return list(rows)

    monkeypatch.setattr(demo, "run_demo", run)


def test_a_row_has_units() -> None:
    assert cells(PASSED) == ("direct", "ok", "2.1 ms", "0.23 ms", "173.6 MB/s", "67,108,958 B", "")
    assert cells(FAILED) == ("ssm", "FAILED", "500.0 ms", "-", "-", "94 B", "wrong bytes after position 7")


def test_columns_stand_one_below_the_other() -> None:
    first, second = line(cells(PASSED)), line(cells(FAILED))

    assert first.index(" ms") + 3 == second.index(" ms") + 3
    assert first.index(" B") == second.index(" B")


def test_the_last_line_says_whether_all_passed() -> None:
    assert summary([PASSED, PASSED]) == "all 2 transports passed: 134,217,916 bytes, every one compared"
    assert summary([PASSED, FAILED]) == "failed: ssm"


def test_all_passed_is_exit_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, PASSED)

    result = typer.testing.CliRunner().invoke(app, ["demo"])

    assert result.exit_code == 0
    assert "direct" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("rows", [(PASSED, FAILED), ()])
def test_anything_else_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, rows: tuple[DemoRow, ...]) -> None:
    pretend(monkeypatch, *rows)

    assert typer.testing.CliRunner().invoke(app, ["demo"]).exit_code == 1


def test_json_is_a_list_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, PASSED, FAILED)

    result = typer.testing.CliRunner().invoke(app, ["demo", "--json"])

    assert result.exit_code == 1
    assert json.loads(result.stdout) == [PASSED.as_json(), FAILED.as_json()]

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner

from session_proxy.cli.lab import fault_table
from session_proxy.cli.main import app
from session_proxy.lab.faults import describe_faults
from tests.support.sproxy import PROGRAM, clean_environ


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_a_lab_runs_until_it_is_interrupted(tmp_path: Path, signum: int, code: int) -> None:
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process(
            [PROGRAM, "lab", "--dir", str(tmp_path / "lab"), "--pace", "--fault", "drop-output=7"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environ(tmp_path),
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert await process.stdout.receive_some() == b"ready\n"
        ready = json.loads((tmp_path / "lab" / "ready.json").read_text())
        page = await trio.run_process(
            ["curl", "-sS", f"http://{ready['targets']['direct']['http']}/"], capture_stdout=True
        )
        assert b"HTTP target" in page.stdout
        process.send_signal(signum)
        assert await process.stderr.receive_some() == b""
        assert await process.wait() == code
        await process.stdout.aclose()
        await process.stderr.aclose()

    assert (tmp_path / "lab" / "ready.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fault", "drop-outputs=7"], "did you mean drop-output?"),
        (["--fault", "silent=maybe"], "silent=on"),
        (["--sshd", "here"], "HOST:PORT"),
        (["--payload", "0"], "--payload"),
    ],
)
def test_a_wrong_option_is_a_usage_error(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["lab", "--dir", str(tmp_path / "lab"), *arguments])

    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "lab").exists()


def test_help_lists_every_fault() -> None:
    result = CliRunner().invoke(app, ["lab", "--help"])

    assert result.exit_code == 0
    for row in describe_faults():
        assert f"{row.name}={row.value}" in result.output
        assert row.says in result.output
        assert row.says in fault_table()


def test_the_guide_lists_every_fault() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "lab.md").read_text(encoding="utf-8")
    rows = [line for line in guide.splitlines() if line.startswith("| `") and "=" in line.split("`")[1]]

    assert rows == [f"| `{row.name}={row.value}` | {row.says} |" for row in describe_faults()]

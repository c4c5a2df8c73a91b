"""How ``sproxy`` ends: exit codes, one line per problem, and no traceback but for bugs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import trio
import typer
from typer.testing import CliRunner

from session_proxy.cli import main as cli
from session_proxy.errors import (
    DialTimeoutError,
    ExitCode,
    NotAllowedError,
    Problem,
    ProfileError,
    UpstreamStartError,
)
from tunnel_relay.errors import HostKeyError

COMMANDS = ("run", "check", "explain", "status", "drain", "completion", "relay-token")

# What takes long to import and most commands do without.
SLOW = ("boto3", "botocore", "paramiko", "cryptography", "trio_websocket", "prometheus_client")


def end_with(monkeypatch: pytest.MonkeyPatch, exc: BaseException) -> int | str | None:
    """Return the exit code of a program whose command raises *exc*."""

    def fail(**_: object) -> None:
        raise exc

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


@pytest.mark.parametrize(
    ("exc", "code", "lines"),
    [
        (
            UpstreamStartError("dev", "no credentials", ExitCode.NOT_PERMITTED),
            77,
            ["upstream dev: no credentials"],
        ),
        (DialTimeoutError("nobody"), 69, ["nobody"]),
        (NotAllowedError("no"), 77, ["no"]),
        (
            ProfileError(None, [Problem("a", "is bad", "write b"), Problem("c", "too")]),
            78,
            ["a: is bad; write b", "c: too"],
        ),
        (HostKeyError("changed"), 1, ["changed"]),
        (FileNotFoundError(2, "No such file", "x"), 1, ["x: no such file"]),
        (OSError(28, "No space left"), 1, ["[Errno 28] No space left"]),
        (
            ExceptionGroup("", [NotAllowedError("a"), ExceptionGroup("", [DialTimeoutError("b")])]),
            77,
            ["a", "b"],
        ),
        (ExceptionGroup("", [DialTimeoutError("same"), DialTimeoutError("same")]), 69, ["same"]),
        (DialTimeoutError("\x1b[2Jhello\u202e"), 69, ["\\x1b[2Jhello\\u202e"]),
    ],
)
def test_a_problem_is_a_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    exc: BaseException,
    code: int,
    lines: list[str],
) -> None:
    assert end_with(monkeypatch, exc) == code

    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == ("", [f"sproxy: {line}" for line in lines])


@pytest.mark.parametrize(
    "exc", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt(), DialTimeoutError("cut short")])]
)
def test_ctrl_c_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], exc: BaseException
) -> None:
    assert end_with(monkeypatch, exc) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("depth", [0, 1, 30])
def test_a_bug_shows_its_traceback_however_deep_in_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], depth: int
) -> None:
    """Python's own limit is 10 groups; a proxy's nurseries are nested deeper."""

    async def fail_below(nurseries: int) -> None:
        if not nurseries:
            raise ZeroDivisionError("\x1b[2J")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_below, nurseries - 1)

    def run(**_: object) -> None:
        trio.run(fail_below, depth)

    monkeypatch.setattr(cli, "app", run)
    with pytest.raises(SystemExit) as caught:
        cli.main()

    assert caught.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2].strip() == r'raise ZeroDivisionError("\x1b[2J")', "the place where it happened"
    assert lines[-1] == r"ZeroDivisionError: \x1b[2J", "and nothing in it steers the terminal"


def test_problems_beside_a_bug_are_lines_after_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    group = ExceptionGroup("", [NotAllowedError("no"), ExceptionGroup("", [KeyError("bug")]), OSError("x")])

    assert end_with(monkeypatch, group) == 1, "not 77: the bug is the news"

    assert capsys.readouterr().err.splitlines() == ["KeyError: 'bug'", "sproxy: no", "sproxy: x"]


def test_how_a_command_chooses_to_end_is_no_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_with(monkeypatch, SystemExit(3)) == 3
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--version"], 0), (["-h"], 0), ([], 2), (["frobnicate"], 2)]
)
def test_what_typer_ends_ends(monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int) -> None:
    monkeypatch.setattr(sys, "argv", ["sproxy", *arguments])

    with pytest.raises(SystemExit) as caught:
        cli.main()

    assert caught.value.code == code


def test_help_names_every_command_in_a_line() -> None:
    shown = CliRunner().invoke(cli.app, ["--help"]).output

    for command in COMMANDS:
        [line] = [line for line in shown.splitlines() if line.startswith(f"  {command} ")]
        assert line.endswith("."), "the summary fits"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_its_help(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"], terminal_width=200)

    assert result.exit_code == 0
    lines = result.output.splitlines()
    options = [index for index, line in enumerate(lines) if line.startswith("  -")]
    assert options
    for index in options:
        # A long option has its help on the next line.
        assert "  " in lines[index].strip() or lines[index + 1].startswith(" " * 8)


def test_what_does_not_need_them_does_not_wait_for_slow_imports(tmp_path: os.PathLike[str]) -> None:
    """All in one process: what one of them imports shows after the last."""
    lines = ("--help", "run --help", "check no.toml", "explain no.toml a:1", "completion bash", "status")
    program = (
        "import sys\n"
        "from session_proxy.cli.main import main\n"
        f"for line in {lines!r}:\n"
        "    sys.argv = ['sproxy', *line.split()]\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        f"print(*(name for name in sys.modules if name in {SLOW!r}), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", program]
    environ = {**os.environ, "HOME": os.fspath(tmp_path), "XDG_RUNTIME_DIR": os.fspath(tmp_path)}

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environ, timeout=60
    )

    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == ""


def test_a_closed_descriptor_is_not_left_for_a_socket_to_take(tmp_path: os.PathLike[str]) -> None:
    program = "import os; from session_proxy.cli.main import main\ntry: main()\nfinally: os.fstat(2)"
    command = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", program, "--version"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0
    assert done.stdout.startswith("sproxy ")


def test_commands_end_by_typers_exit() -> None:
    """`typer.Exit` is how a command chooses its code; it must not be taken for a problem."""
    assert not issubclass(typer.Exit, cli.EXPECTED)

from __future__ import annotations

import errno
import os
import sys
import typing
from pathlib import Path
from typing import NoReturn

import pytest
from typer.models import ParameterInfo
from typer.testing import CliRunner

from session_proxy.cli import main as cli
from session_proxy.cli.main import app

# With words that stand before the file, and behind it.
READERS = (
    ("run", (), ()),
    ("run", ("--config",), ()),
    ("check", (), ()),
    ("explain", (), ("db:1",)),
    ("awg-client", (), ()),
    ("awg-server", (), ()),
    ("awg-import", (), ()),
    ("awg-import", ("--export",), ()),
    ("relay-audit", ("verify",), ()),
)


@pytest.mark.parametrize("command", ["run", "status", "drain"])
def test_commands_that_share_an_option_say_the_same_of_it(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], terminal_width=200).output

    assert "The profile; absent: ./config.toml or .yaml" in shown
    assert "The name of the control socket." in shown


@pytest.mark.parametrize(("command", "before", "behind"), READERS)
def test_a_file_that_one_may_not_read_is_a_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
    before: tuple[str, ...],
    behind: tuple[str, ...],
) -> None:
    file = tmp_path / "x.toml"
    file.write_text("")

    def refuse(path: Path, *_arguments: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def access(*_arguments: object) -> bool:
        return False

    # Nothing is refused to root, who may run this.
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr(sys, "argv", ["sproxy", command, *before, str(file), *behind])

    with pytest.raises(SystemExit) as end:
        cli.main()

    said = "".join(capsys.readouterr())
    assert said.removeprefix("sproxy: ") == (
        f"{file}: cannot be read: permission denied; make it readable for you\n"
    )
    assert end.value.code == 78


def test_no_path_is_tried_before_its_command_runs() -> None:
    tried: list[str] = []
    for command in app.registered_commands:
        assert command.callback is not None
        for name, hint in typing.get_type_hints(command.callback, include_extras=True).items():
            kind, *metadata = typing.get_args(hint) or (hint,)
            if Path in (kind, *typing.get_args(kind)):
                infos = [each for each in metadata if isinstance(each, ParameterInfo)]
                tried += [
                    f"{command.callback.__name__} {name}" for info in infos if info.readable or info.exists
                ]
                assert infos

    assert tried == []

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest

from session_proxy.supervision.state_folder import AUDIT_FIX, FIX, find_audit_problem, find_problem


def test_a_folder_that_is_there_or_can_be_made_is_good_and_stays_as_it_is(tmp_path: Path) -> None:
    assert find_problem(tmp_path) is None
    assert find_problem(tmp_path / "a" / "b") is None
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_folder_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert find_problem(Path("state")) is None


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file, file / "state"):
        problem = find_problem(folder)

        assert problem is not None
        assert str(problem) == f"state: {file} is a file, not a folder; {FIX}"
    assert file.read_text() == "mine"


def test_a_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:  # noqa: A002
        raise PermissionError(errno.EACCES, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    for folder, what in ((tmp_path, "written"), (tmp_path / "new", "made")):
        problem = find_problem(folder)

        assert problem is not None
        assert problem.message == f"{folder} cannot be {what}: permission denied"


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "state").symlink_to(tmp_path / "gone")

    problem = find_problem(tmp_path / "state")

    assert problem is not None
    assert "cannot be written: no such file or directory" in problem.message


def test_an_audit_log_that_is_there_or_can_be_made_stays_as_it_is(tmp_path: Path) -> None:
    assert find_audit_problem(tmp_path / "new.jsonl") is None
    assert not list(tmp_path.iterdir())
    (tmp_path / "old.jsonl").write_text("entry\n")
    assert find_audit_problem(tmp_path / "old.jsonl") is None
    assert (tmp_path / "old.jsonl").read_text() == "entry\n"


def test_an_audit_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for file, reason in (("none/log", "no such file or directory"), ("folder", "is a directory")):
        problem = find_audit_problem(tmp_path / file)

        assert str(problem) == f"audit.file: {tmp_path / file} cannot be written: {reason}; {AUDIT_FIX}"

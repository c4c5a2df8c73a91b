from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from session_proxy.profile.private_files import OutputError, make_folder, write_new, write_private


def test_files_with_secrets_are_their_owners_only(tmp_path: Path) -> None:
    write_private(tmp_path / "secret", "one")
    write_private(tmp_path / "secret", "two")

    assert (tmp_path / "secret").read_text() == "two"
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(tmp_path / "secret", "one")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(tmp_path / "secret", "two")

    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert (tmp_path / "secret").read_text() == "one"


def test_new_files_are_written_together(tmp_path: Path) -> None:
    write_new({tmp_path / "a": "1", tmp_path / "b": "2"})

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "1", "b": "2"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_nothing_is_written_where_one_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")

    with pytest.raises(OutputError, match=r"/b: is there already; name another place"):
        write_new({tmp_path / "a": "1", tmp_path / "b": "2"})

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "mine"}


def test_a_new_file_that_cannot_be_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, said in (
        (tmp_path / "no" / "a", f"there is no folder {tmp_path}/no; make the folder, or name another place"),
        (tmp_path / "file" / "a", "cannot be written: not a directory; name another place"),
    ):
        with pytest.raises(OutputError) as info:
            write_new({tmp_path / "first": "1", path: "2"})

        assert str(info.value) == f"{path}: {said}"
        assert info.value.exit_code == 78
        assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_folders_are_made_or_it_is_told_why_not(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700

    (tmp_path / "file").write_text("")
    for path, said in (
        (tmp_path / "file", "is a file; name a folder"),
        (tmp_path / "file" / "a", "cannot be made: not a directory; name another folder"),
    ):
        with pytest.raises(OutputError) as info:
            make_folder(path)
        assert str(info.value) == f"{path}: {said}"

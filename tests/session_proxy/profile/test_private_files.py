from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from session_proxy.profile.private_files import OccupiedError, write_new, write_private


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

    with pytest.raises(OccupiedError, match=r"/b: is there already; name another place"):
        write_new({tmp_path / "a": "1", tmp_path / "b": "2"})

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "mine"}

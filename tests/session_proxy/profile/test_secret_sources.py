from __future__ import annotations

from pathlib import Path

import pytest

from session_proxy.profile import secret_sources
from session_proxy.profile.secret_sources import InvalidValueError, SecretSources, expand_path, reread


def test_a_secret_comes_from_where_the_text_says(tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("from file\r\n")
    sources = SecretSources(tmp_path, {"NAME": "from variable", "PATH": "/usr/bin:/bin"})

    for text, source, reference, secret in (
        ("env:NAME", "env", "NAME", "from variable"),
        ("file:pass", "file", "pass", "from file"),
        (f"file:{tmp_path}/pass", "file", f"{tmp_path}/pass", "from file"),
        ("command:cat pass; echo more", "command", "cat pass; echo more", "from file"),
        ("command:echo $NAME", "command", "echo $NAME", "from variable"),
        ("literal", "literal", "", "literal"),
        ("a:b", "literal", "", "a:b"),
        ("environment", "literal", "", "environment"),
    ):
        read = sources.read(text)
        assert (read.source, read.reference, read.reveal()) == (source, reference, secret)


def test_a_file_keeps_its_inner_lines(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\ntwo\n\n")

    assert SecretSources(tmp_path, {}).read("file:keys").reveal() == "one\ntwo"


def test_a_secret_may_lie_in_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")

    assert SecretSources(Path("/nowhere"), {"HOME": str(tmp_path)}).read("file:~/token").reveal() == "t"


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "is not text")]
)
def test_a_file_without_a_secret_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "pass").write_bytes(content)

    with pytest.raises(InvalidValueError, match=message):
        SecretSources(tmp_path, {}).read("file:pass")


def test_a_file_that_is_no_secret_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_sources, "MAX_SECRET_FILE", 10)
    (tmp_path / "image").write_bytes(b"x" * 11)

    with pytest.raises(InvalidValueError, match="larger than 10 bytes"):
        SecretSources(tmp_path, {}).read("file:image")


def test_a_command_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_sources, "COMMAND_PATIENCE", 0.05)

    with pytest.raises(InvalidValueError, match=r"longer than 0\.05 s"):
        SecretSources(tmp_path, {"PATH": "/usr/bin:/bin"}).read("command:exec sleep 60")


def test_a_command_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="cannot run"):
        SecretSources(tmp_path / "gone", {}).read("command:true")


def test_a_command_reads_nothing_from_our_stdin(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="printed nothing"):
        SecretSources(tmp_path, {"PATH": "/usr/bin:/bin"}).read("command:cat")


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match="is not a path"):
        expand_path(text, Path("/base"), {})


def test_paths_are_relative_to_the_file() -> None:
    environ = {"HOME": "/home/me"}

    assert expand_path("a/b", Path("/base"), environ) == Path("/base/a/b")
    assert expand_path("/a/b", Path("/base"), environ) == Path("/a/b")
    assert expand_path("~", Path("/base"), environ) == Path("/home/me")
    assert expand_path("~/a", Path("/base"), environ) == Path("/home/me/a")
    assert expand_path("~root", Path("/base"), {}) == Path("~root").expanduser()


def test_what_a_file_or_a_command_gives_may_change(tmp_path: Path) -> None:
    environ = {"NAME": "kept", "PATH": "/usr/bin:/bin"}
    sources = SecretSources(tmp_path, environ)
    token = tmp_path / "token"
    token.write_text("old")
    file, command = sources.read("file:token"), sources.read("command:cat token")
    variable, literal = sources.read("env:NAME"), sources.read("text")

    token.write_text("new\n")

    assert [reread(file), reread(command)] == ["new", "new"]
    assert [reread(variable), reread(literal)] == ["kept", "text"]
    assert [file.reveal(), command.reveal()] == ["old", "old"]


def test_a_secret_that_is_gone_says_so(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2")
    sources = SecretSources(tmp_path, {"PATH": "/usr/bin:/bin"})
    file, command = sources.read("file:token"), sources.read("command:cat token 2>/dev/null")

    (tmp_path / "token").unlink()

    with pytest.raises(InvalidValueError, match=r"cannot read .*token: no such file"):
        reread(file)
    with pytest.raises(InvalidValueError, match="failed with status 1") as info:
        reread(command)
    assert "hunter2" not in str(info.value)


def test_secrets_are_the_same_where_they_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")

    assert SecretSources(tmp_path, {}).read("file:token") == SecretSources(tmp_path, {"A": "1"}).read(
        "file:token"
    )

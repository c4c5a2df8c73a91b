from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.errors import ProfileError
from session_proxy.profile import documents
from session_proxy.profile.documents import read_document


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "x = 1"),
        ("a", "x = 1"),
        ("a.yaml", "x: 1"),
        ("a.yml", "x: 1"),
        ("bom.toml", "\ufeffx = 1"),
        ("crlf.toml", "x = 1\r\n"),
    ],
)
def test_the_suffix_tells_the_format(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(text.encode())

    assert read_document(file) == {"x": 1}


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("a.conf", b"x = 1", "a.conf: the suffix '.conf' names no known format; call it .toml or .yaml"),
        ("a.json", b"{}", "a.json: the suffix '.json' names no known format; call it .toml or .yaml"),
        ("a.toml", b"x = 1\ny = '\xff'", "a.toml:2: is not UTF-8 text; save it as UTF-8"),
        ("a.toml", b"x = " + b"[" * 20_000, "a.toml: is nested too deeply; use at most 32 levels"),
        ("a.yaml", b"x: " + b"[" * 200_000, "a.yaml:1: is nested too deeply; use at most 32 levels"),
        ("a.yaml", b"x: " + b"[" * 40 + b"]" * 40, "a.yaml:1: is nested too deeply; use at most 32 levels"),
        ("a.yaml", b"x: \x01", "a.yaml: holds a character that YAML does not allow; remove it"),
    ],
)
def test_unreadable_content(name: str, content: bytes, shown: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ProfileError) as info:
        read_document(tmp_path / name)

    assert str(info.value) == f"{tmp_path}/{shown}"


CONF = "# home\n[Interface]\nPrivateKey = AAAA=\n\n[Peer] # server\nEndpoint = a:1\n"


@pytest.mark.parametrize("name", ["my wg.conf", "wg", "wg.toml"])
def test_a_conf_of_wireguard_is_known_and_has_its_command(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(CONF)

    with pytest.raises(ProfileError) as info:
        read_document(file)

    command = f"sproxy awg-import {shlex.quote(str(file))}"
    assert str(info.value) == (
        f'{file}: is a .conf of WireGuard or AmneziaWG; make a client.toml or server.toml of it with "{command}"'
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="there is no such file; check the path"):
        read_document(tmp_path / "no.toml")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"is a folder; write .*/profile\.toml"):
        read_document(tmp_path)


def test_the_example_is_of_the_kind_that_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"is a folder; write .*/server\.toml"):
        read_document(tmp_path, "server.toml")


def test_something_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ProfileError, match="cannot be read: not a directory; make it readable"):
        read_document(tmp_path / "file" / "a.toml")


def test_what_is_too_large_to_be_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_FILE", 10)
    (tmp_path / "a.toml").write_text("x = 1234567")

    with pytest.raises(ProfileError, match="larger than 10 bytes"):
        read_document(tmp_path / "a.toml")


@given(st.binary() | st.text(st.sampled_from("a=:[]{}\"'\n \t-&*!1.#")).map(str.encode))
def test_any_bytes_are_a_document_or_a_documented_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name in ("fuzz.toml", "fuzz.yaml"):
        (folder / name).write_bytes(content)
        with contextlib.suppress(ProfileError):
            assert isinstance(read_document(folder / name), dict)

"""TOML and YAML files as plain data: dictionaries with text keys, lists, text, numbers, true and false."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

from session_proxy.errors import Problem, ProfileError
from session_proxy.profile.yaml_documents import YamlProblemError, parse_yaml

# 20 000 routes take about 2 MB; more than this is not a profile.
MAX_FILE = 32 << 20

# Lists and tables within one another: profiles need six, and both parsers recurse.
MAX_DEPTH = 32

TOML_SUFFIXES = (".toml", "")
YAML_SUFFIXES = (".yaml", ".yml")

Document = dict[str, object]


# How WireGuard and AmneziaWG begin a part of a ``.conf``. Keys in base64 are no TOML without quotes.
CONF_SECTION = re.compile(r"^\s*\[(interface|peer)\]\s*(#.*)?$", re.IGNORECASE | re.MULTILINE)


def read_document(path: Path, example: str = "profile.toml") -> Document:
    """Return what the file at *path* says; its suffix tells the format, and without one it is TOML.

    *example* is how such a file could be called, for whoever names a folder.

    Raises:
      ProfileError: it cannot be read, or is not TOML or YAML. Names the line where there is one.

    """
    text = read_text(path, example)
    if path.suffix in YAML_SUFFIXES:
        return _parse_yaml(path, text)
    if path.suffix in TOML_SUFFIXES:
        return _parse_toml(path, text)
    if CONF_SECTION.search(text):
        raise ProfileError(path, [_conf_problem(path)])
    what = f"the suffix {path.suffix!r} names no known format"
    raise ProfileError(path, [Problem("", what, "call it .toml or .yaml")])


def read_text(path: Path, example: str) -> str:
    """Return what the file at *path* holds, which might be called *example*.

    Raises:
      ProfileError: it cannot be read.

    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError as exc:
        raise ProfileError(path, [Problem("", "there is no such file", "check the path")]) from exc
    except IsADirectoryError as exc:
        fix = f"write {path / example}, for example"
        raise ProfileError(path, [Problem("", "is a folder", fix)]) from exc
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise ProfileError(
            path, [Problem("", f"cannot be read: {reason}", "make it readable for you")]
        ) from exc
    if len(content) > MAX_FILE:
        raise ProfileError(
            path, [Problem("", f"is larger than {MAX_FILE} bytes", f"name the {example} itself")]
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ProfileError(path, [Problem("", "is not UTF-8 text", "save it as UTF-8", line)]) from None


def _parse_toml(path: Path, text: str) -> Document:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        if CONF_SECTION.search(text):
            raise ProfileError(path, [_conf_problem(path)]) from None
        raise ProfileError(path, [_toml_problem(str(exc), text)]) from None
    except RecursionError:
        raise ProfileError(
            path, [Problem("", "is nested too deeply", f"use at most {MAX_DEPTH} levels")]
        ) from None


def _conf_problem(path: Path) -> Problem:
    command = f'"sproxy awg-import {shlex.quote(str(path))}"'
    fix = f"make a client.toml or server.toml of it with {command}"
    return Problem("", "is a .conf of WireGuard or AmneziaWG", fix)


def _toml_problem(message: str, text: str) -> Problem:
    """Turn ``Expected '=' after a key … (at line 3, column 7)`` into a problem with a fix."""
    found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    said = message[: found.start()] if found else message
    lines = text.splitlines() or [""]
    number = int(found[1]) if found and found[1] else len(lines)
    # A key that stands twice is reported after its value, on the same line or a later one.
    line = lines[min(number, len(lines)) - 1]
    key = line.partition("=")[0].strip()
    what = said[:1].lower() + said[1:]
    if "overwrite" in said or "Cannot declare" in said or "Cannot mutate" in said:
        where = f"{key} stands twice" if key and not key.startswith('"""') else what
        return Problem("", where, "keep one of them, and write several routes as [[routes]]", number)
    if re.match(r"\s*[\w.-]+\s*:", line) and "=" not in line:
        return Problem("", "this line looks like YAML", "write KEY = VALUE, or call the file .yaml", number)
    if "Invalid value" in said and "=" in line:
        return Problem("", f"{key} has a value that is not TOML", "put text into quotes", number)
    return Problem(
        "", f"not TOML: {what}", "check the quotes and brackets of this line and the one before", number
    )


def _parse_yaml(path: Path, text: str) -> Document:
    try:
        return parse_yaml(text, MAX_DEPTH)
    except YamlProblemError as exc:
        raise ProfileError(path, [Problem("", str(exc), exc.fix, exc.line)]) from None

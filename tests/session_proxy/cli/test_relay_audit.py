from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from session_proxy.cli import relay_audit
from session_proxy.cli.main import app
from session_proxy.errors import UnreadableFileError
from tunnel_relay.protocol.audit_chain import Action, AuditEntry, Head, append
from tunnel_relay.protocol.audit_chain import Result as Outcome


def chain(count: int, after: Head | None = None) -> tuple[list[bytes], Head]:
    """Return the lines of so many entries, and the head."""
    lines: list[bytes] = []
    head = after or Head()
    for number in range(count):
        entry = AuditEntry(
            time=1.8e9 + number, action=Action.CONNECT, result=Outcome.SUCCESS, user=f"user-{number}"
        )
        line, head = append(entry, head)
        lines.append(line)
    return lines, head


def verify(folder: Path, lines: list[bytes], *options: str) -> Result:
    file = folder / "audit.jsonl"
    file.write_bytes(b"".join(lines))
    return CliRunner().invoke(app, ["relay-audit", "verify", str(file), *options])


def test_a_good_log_says_where_it_has_got_to(tmp_path: Path) -> None:
    lines, head = chain(3)

    result = verify(tmp_path, lines)

    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path}/audit.jsonl: good, up to entry 3\n  head  {head}\n"
    assert verify(tmp_path, lines, "--noted", str(head)).exit_code == 0


def test_the_first_altered_line_is_named(tmp_path: Path) -> None:
    lines, _ = chain(5)
    lines[2] = lines[2].replace(b"user-2", b"user-9")
    lines[3] = lines[3].replace(b"user-3", b"user-9")

    result = verify(tmp_path, lines)

    assert result.exit_code == 1
    assert result.stdout == f"{tmp_path}/audit.jsonl:3: line 3 was altered\n"


ONE, TWO, THREE = chain(3)[0]


@pytest.mark.parametrize(
    ("lines", "line", "said"),
    [
        ([TWO, THREE], 1, "entry 1 is missing"),
        ([ONE, THREE], 2, "entry 2 is missing"),
        ([ONE, THREE, TWO], 2, "has entry 3"),
        ([ONE, TWO, THREE, THREE], 4, "has number 3 again"),
        ([ONE, TWO, THREE[:-5]], 3, "was cut short"),
        ([ONE, TWO, THREE, b"\n"], 4, "line 4"),
    ],
)
def test_other_damage(lines: list[bytes], line: int, said: str, tmp_path: Path) -> None:
    result = verify(tmp_path, lines)

    assert result.exit_code == 1
    assert result.stdout.startswith(f"{tmp_path}/audit.jsonl:{line}: ")
    assert said in result.stdout
    assert result.stdout.count("\n") == 1


def test_an_end_that_was_cut_off_shows_against_a_noted_head(tmp_path: Path) -> None:
    lines, head = chain(3)

    assert verify(tmp_path, lines[:2]).exit_code == 0
    result = verify(tmp_path, lines[:2], "--noted", str(head))
    assert result.exit_code == 1
    assert "entry 3 is cut off" in result.stdout


def test_a_rotated_log_goes_on_after_the_one_before(tmp_path: Path) -> None:
    _, head = chain(3)
    lines, last = chain(2, after=head)

    result = verify(tmp_path, lines, "--after", str(head))

    assert result.exit_code == 0
    assert str(last) in result.stdout
    assert verify(tmp_path, lines).exit_code == 1


def test_a_log_of_nothing_is_good(tmp_path: Path) -> None:
    assert "good, up to entry 0" in verify(tmp_path, []).stdout


def test_json(tmp_path: Path) -> None:
    lines, head = chain(2)
    file = str(tmp_path / "audit.jsonl")

    good = json.loads(verify(tmp_path, lines, "--json").stdout)
    bad = json.loads(verify(tmp_path, [lines[0], b"x\n"], "--json").stdout)

    assert good == {"file": file, "ok": True, "head": str(head)}
    assert bad == {
        "file": file,
        "ok": False,
        "head": str(chain(1)[1]),
        "line": 2,
        "damage": "altered",
        "detail": "line 2 was altered",
    }


def test_a_line_without_an_end_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_audit, "LONGEST_LINE", 1024)
    lines, _ = chain(1)

    result = verify(tmp_path, [*lines, b"x" * 5000])

    assert (result.exit_code, result.stdout) == (
        1,
        f"{tmp_path}/audit.jsonl:2: line 2 was altered\n",
    )


@pytest.mark.parametrize("option", ["--noted", "--after"])
def test_a_head_that_is_none_is_a_wrong_command_line(option: str, tmp_path: Path) -> None:
    result = verify(tmp_path, [], option, "5:abc")

    assert result.exit_code == 2
    assert f"Invalid value for {option}: a head is written NUMBER:SHA256" in result.stderr


def test_a_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["relay-audit", "verify", str(tmp_path / "none")])

    assert isinstance(result.exception, UnreadableFileError)
    assert result.exception.exit_code == 78
    assert (
        str(result.exception) == f"{tmp_path}/none: cannot be read: no such file or directory; check the path"
    )


def test_a_folder_is_no_altered_log(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["relay-audit", "verify", str(tmp_path)])

    assert isinstance(result.exception, UnreadableFileError)

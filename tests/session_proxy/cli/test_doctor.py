"""The command: what it prints, and with what it exits."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from session_proxy.cli.main import app
from tests.support.sshd import generate_key, start_sshd


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def write(folder: Path, port: int, user: str = "me") -> Path:
    """Write a profile with a bastion that works, if its sshd does, and one where nothing listens."""
    file = folder / "profile.toml"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    file.write_text(f"""\
default = "good"
[upstreams.good]
kind = "ssh"
address = "127.0.0.1:{port}"
[upstreams.good.ssh]
user = "{user}"
key = "key"
known_hosts = "known_hosts"
[upstreams.bad]
kind = "ssh"
address = "127.0.0.1:{closed}"
startup = "background"
[upstreams.bad.ssh]
key = "key"
[[routes]]
match = "*.x"
upstream = ["good", "bad"]
""")
    return file


def test_people_read_stages_and_programs_json(tmp_path: Path) -> None:
    public = generate_key(tmp_path / "key")
    with start_sshd(tmp_path / "sshd", authorized=[public]) as server:
        file = write(tmp_path, server.port, server.user)
        good = invoke(str(file), "--upstream", "good", "--target", f"127.0.0.1:{server.port}")
        both = invoke(str(file), "--json")

    assert good.exit_code == 0, good.output
    lines = good.stdout.splitlines()
    assert lines[0] == f"{file} (file): works"
    assert "1 way to examine" in lines[1]
    assert lines[2] == "good (ssh): works"
    assert [line.split()[:2] for line in lines[3:]] == [
        [step, "ok"] for step in ("configuration", "credentials", "names", "reach", "ssh", "echo")
    ]

    assert both.exit_code == 69
    report = json.loads(both.stdout)
    assert (report["ok"], report["exit_code"]) == (False, 69)
    assert report["file"]["stages"][0]["found"] == "2 ways to examine"
    assert [(each["name"], each["outcome"]) for each in report["upstreams"]] == [
        ("good", "ok"),
        ("bad", "failed"),
    ]
    reach = report["upstreams"][1]["stages"][3]
    assert (reach["stage"], reach["category"]) == ("reach", "network")
    assert reach["fix"].startswith("start sshd there")


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    file.write_text('defalt = "dev"\nlisten = "nowhere"\n')
    result = invoke(str(file))

    assert result.exit_code == 78
    lines = result.stdout.splitlines()
    assert lines[0] == f"{file} (file): does not work"
    assert 'defalt: is not a key; did you mean "default"?' in lines[1]
    assert len(lines) == 3

    report = json.loads(invoke(str(file), "--json").stdout)
    assert (report["exit_code"], report["upstreams"]) == (78, [])


def test_there_is_nothing_to_connect_to(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    file.write_text("")
    result = invoke(str(file))

    assert result.exit_code == 0
    assert "nothing to connect to" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--upstream", "god"), "there is no upstream 'god'; there is good, bad"),
        (("--target", "nowhere"), "HOST:PORT"),
    ],
)
def test_wrong_options(tmp_path: Path, arguments: tuple[str, str], message: str) -> None:
    generate_key(tmp_path / "key")
    result = invoke(str(write(tmp_path, 1)), *arguments)

    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())

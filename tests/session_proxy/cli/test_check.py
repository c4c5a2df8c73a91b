from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from session_proxy.cli.check import check
from tests.support.awg_files import SOUND, ClientText, ServerText
from tests.support.relay_files import JWKS, TOKEN, AgentText, RelayText, RelayUpstreamText

GOOD = """\
listen = ["127.0.0.1:1080", "[::1]:1080"]
default = "dev"
[upstreams.dev]
instances = "i-1"
[upstreams.edge]
kind = "ssh"
address = "edge:22"
[[routes]]
match = "*.x"
upstream = ["edge", "dev"]
"""


def invoke(folder: Path, text: str, *options: str) -> Result:
    file = folder / "profile.toml"
    file.write_text(text)
    app = typer.Typer()
    app.command()(check)
    return CliRunner().invoke(app, [str(file), *options])


def test_a_good_profile_is_summed_up(tmp_path: Path) -> None:
    result = invoke(tmp_path, GOOD)

    assert result.exit_code == 0
    assert result.stdout == (
        f"{tmp_path}/profile.toml: good\n"
        "  listen     127.0.0.1:1080, [::1]:1080\n"
        "  upstreams  dev (ssm, required), edge (ssh, background)\n"
        "  routes     1, else dev\n"
    )


def test_an_empty_profile_is_good(tmp_path: Path) -> None:
    assert "upstreams  none" in invoke(tmp_path, "").stdout


def test_every_problem_is_a_line(tmp_path: Path) -> None:
    result = invoke(tmp_path, 'defalt = "dev"\nlisten = "0.0.0.0:1"\n')

    assert result.exit_code == 78
    assert result.stdout.splitlines() == [
        f'{tmp_path}/profile.toml: defalt: is not a key; did you mean "default"?',
        (
            f"{tmp_path}/profile.toml: listen: 0.0.0.0:1 lets other machines in without credentials; "
            'write [auth] with user and pass, "127.0.0.1:1", or allow_anonymous = true'
        ),
    ]


def test_warnings_do_not_stand_in_the_way(tmp_path: Path) -> None:
    result = invoke(tmp_path, '[upstreams.dev]\ninstances = "i-1"')

    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: {tmp_path}/profile.toml: upstreams.dev: no route leads there")
    assert "no route" not in result.stdout


@pytest.mark.parametrize(
    ("text", "line"), [(ServerText(awg=SOUND), "peers"), (ClientText(awg=SOUND), "endpoint")]
)
def test_files_of_kind_awg_are_known_by_their_keys(text: object, line: str, tmp_path: Path) -> None:
    result = invoke(tmp_path, str(text))

    assert result.exit_code == 0, result.stdout
    first, *rest = result.stdout.splitlines()
    assert first == f"{tmp_path}/profile.toml: good"
    assert [words[0] for words in map(str.split, rest)][:2] == ["listen", line]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (RelayText(), ["listen", "tls", "profile"]),
        (AgentText(), ["agent", "endpoints", "services"]),
        (f'default = "home"\n{RelayUpstreamText()}', ["listen", "upstreams", "routes"]),
    ],
)
def test_files_of_a_relay_are_known_by_their_keys(text: object, lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(JWKS)

    result = invoke(tmp_path, str(text))

    assert result.exit_code == 0, result.stdout
    first, *rest = result.stdout.splitlines()
    assert first == f"{tmp_path}/profile.toml: good"
    assert [words[0] for words in map(str.split, rest)][:3] == lines
    assert TOKEN not in result.output


def test_every_problem_of_a_relay_is_a_line(tmp_path: Path) -> None:
    result = invoke(tmp_path, 'listen = "0.0.0.0:1"\n[jwt]\nkeys = "hunter2"\n')

    assert result.exit_code == 78
    assert [line.split(": ")[1] for line in result.stdout.splitlines()] == ["tls", "jwt.keys"]
    assert "hunter2" not in result.output


@pytest.mark.parametrize("text", [RelayText(top='listen = "127.0.0.1:1"\nstate = "file"\n'), AgentText()])
def test_a_state_folder_that_a_relay_could_not_use_is_a_problem(
    text: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jwks.json").write_text(JWKS)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))

    result = invoke(tmp_path, str(text))

    assert result.exit_code == 78
    assert f"state: {tmp_path}/file is a file, not a folder" in result.stdout


def test_a_state_folder_that_a_server_could_not_use_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    result = invoke(tmp_path, f'state = "file/state"\n{ServerText(awg=SOUND)}')

    assert result.exit_code == 78
    assert result.stdout.startswith(
        f"{tmp_path}/profile.toml: state: {tmp_path}/file is a file, not a folder; make room"
    )


def test_where_a_server_keeps_its_state_without_a_folder_of_its_own_is_tried_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "profile.toml"))

    result = invoke(tmp_path, str(ServerText(awg=SOUND)))

    assert f"state: {tmp_path}/profile.toml is a file, not a folder" in result.stdout
    assert invoke(tmp_path, str(ClientText(awg=SOUND))).exit_code == 0


def test_problems_of_a_server_are_those_of_a_server(tmp_path: Path) -> None:
    result = invoke(tmp_path, f"{ServerText()}\nadress = 1\n", "--json")

    assert result.exit_code == 78
    report = json.loads(result.stdout)
    assert report["file"] == f"{tmp_path}/profile.toml"
    assert [problem["path"] for problem in report["problems"]] == ["peers[0].adress"]


def test_json_of_a_good_profile(tmp_path: Path) -> None:
    result = invoke(tmp_path, GOOD, "--json")

    assert result.exit_code == 0
    report: dict[str, object] = {
        "file": f"{tmp_path}/profile.toml",
        "ok": True,
        "problems": [],
        "warnings": [],
    }
    assert json.loads(result.stdout) == report


def test_json_of_a_bad_profile(tmp_path: Path) -> None:
    result = invoke(tmp_path, "listen = 1080", "--json")

    assert result.exit_code == 78
    assert json.loads(result.stdout)["problems"] == [
        {
            "path": "listen",
            "message": "is a port without a host",
            "fix": 'write "127.0.0.1:1080"',
            "line": None,
        }
    ]


def test_json_without_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    app = typer.Typer()
    app.command()(check)
    result = CliRunner().invoke(app, ["--json"])

    assert result.exit_code == 78
    report = json.loads(result.stdout)
    assert (report["file"], report["ok"], report["problems"][0]["message"]) == (
        None,
        False,
        "there is no profile",
    )

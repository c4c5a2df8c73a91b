"""The command: what it prints, and with what it exits."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from typer.testing import CliRunner, Result

from awg_obfs.protocol.keys import key_to_text
from session_proxy.cli import asking
from session_proxy.cli.main import app
from session_proxy.supervision.status import ProxyStatus, ServiceStatus, TrafficStatus, UpstreamStatus
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
    assert lines[0] == f"{file} (file): good"
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
    assert lines[0] == f"{file} (file): cannot be used"
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


AWG = f"""\
default = "edge"
[upstreams.edge]
kind = "awg"
endpoint = "127.0.0.1:9"
private_key = "{key_to_text(bytes(range(32)))}"
public_key = "z2lwsDWQ1vNYoVoCPBuYYBNwPwAxbq+OVFp5D7IbZGY="
"""


def running(state: str) -> dict[str, object]:
    upstream = UpstreamStatus(
        state=state, reason="", seconds=1, required=True, links=1, details={"via": "127.0.0.1:9"}
    )
    traffic = TrafficStatus(open=0, total=0, sent=0, received=0)
    proxy = ProxyStatus(profile="p", connections=traffic, upstreams={"edge": upstream, "direct": upstream})
    service = ServiceStatus(
        name="profile",
        pid=7,
        version="1",
        state="ready",
        ready=True,
        reasons={},
        uptime=1,
        listen=[],
        admin=[],
    )
    return {**attrs.asdict(service), **attrs.asdict(proxy)}


def test_a_running_proxy_keeps_its_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of our own would take over that one."""
    states = iter(["ready", "down"])

    def answer(*_args: object) -> dict[str, object]:
        return running(next(states))

    file = tmp_path / "profile.toml"
    file.write_text(AWG)
    file.chmod(0o600)
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        file.write_text(AWG.replace("127.0.0.1:9", f"127.0.0.1:{server.getsockname()[1]}"))
        monkeypatch.setattr(asking, "ask_running", answer)
        result = invoke(str(file))
    assert "profile runs (process 7) and has the session; via 127.0.0.1:9" in result.stdout
    assert result.exit_code == 0

    result = invoke(str(file))
    assert "has the session" not in result.stdout
    assert result.exit_code == 69


def test_ctrl_c_ends_it_without_a_traceback(tmp_path: Path) -> None:
    """A server that does not speak holds it up; what has been found is on the screen by then."""
    generate_key(tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = write(tmp_path, silent.getsockname()[1])
        command = [
            sys.executable,
            "-c",
            "from session_proxy.cli.main import main; main()",
            "doctor",
            str(file),
        ]
        root = str(Path(__file__).parents[3])
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": root},
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            shown = b""
            while b"bad (ssh): does not work" not in shown:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                shown += line
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == b""

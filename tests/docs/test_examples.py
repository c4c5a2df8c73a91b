"""Every example is run as it is."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from awg_obfs.protocol.keys import key_to_text
from session_proxy.lab.targets import PAGE
from session_proxy.profile.awg_loading import load_awg_client, load_awg_server
from session_proxy.profile.awg_model import AwgClient, AwgServer
from session_proxy.profile.loading import load_profile
from session_proxy.profile.relay_loading import load_relay_agent, load_relay_server
from session_proxy.profile.relay_model import RelayAgent, RelayServer
from session_proxy.target import split_host_port
from tests.support.programs import END, Lab, Program, start_lab
from tests.support.relay_files import TOKEN, write_what_files_name

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
FILES = EXAMPLES.parent / "docs" / "examples"
KEY = key_to_text(bytes(range(32)))
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
LONGEST_PROGRAM = 50

# The folder that a unit of systemd makes.
SERVICE_STATE = "/var/lib/session-proxy"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Generator[Lab]:
    with start_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


def run(lab: Lab, name: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        check=False,
        env=lab.env,
        timeout=END,
    )


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_program_is_short_and_says_how_to_run_it(program: Path) -> None:
    text = program.read_text(encoding="utf-8")

    assert text.count("\n") <= LONGEST_PROGRAM
    assert f"python {program.name}" in text.partition("\n")[0]


@pytest.mark.parametrize(
    "file", [path for path in sorted(EXAMPLES.iterdir()) if path.suffix in (".toml", ".yaml")], ids=str
)
def test_a_profile_is_good(file: Path) -> None:
    profile = load_profile(
        file, environ={"SPROXY_PASS": "x", "AWG_KEY": KEY, "AWG_PSK": KEY, "RELAY_TOKEN": TOKEN}
    )

    assert profile.listen


@pytest.mark.parametrize(("name", "load"), [("server", load_awg_server), ("client", load_awg_client)])
def test_files_of_kind_awg_are_good(name: str, load: Callable[..., AwgServer | AwgClient]) -> None:
    warnings: list[str] = []
    environ = {"AWG_KEY": KEY, "PHONE_PSK": KEY, "SOCKS_PASS": "x"}

    loaded = load(FILES / f"{name}.toml", environ=environ, warn=warnings.append)

    assert loaded.listen
    assert not warnings


@pytest.mark.parametrize(("name", "load"), [("relay", load_relay_server), ("agent", load_relay_agent)])
def test_files_of_a_relay_are_good(
    name: str, load: Callable[..., RelayServer | RelayAgent], tmp_path: Path
) -> None:
    warnings: list[str] = []
    write_what_files_name(tmp_path)
    file = tmp_path / f"{name}.toml"
    file.write_text((FILES / file.name).read_text().replace(SERVICE_STATE, str(tmp_path)))

    loaded = load(file, environ={}, warn=warnings.append)

    assert loaded.admin is None or loaded.admin.listen.host == "127.0.0.1"
    assert not warnings


@pytest.mark.parametrize("transport", ["direct", "ssh", "ssm", "ssm-port", "awg", "relay"])
def test_fetch_brings_the_page(lab: Lab, transport: str) -> None:
    host, port = split_host_port(lab.target(transport).http)

    answer = run(lab, "fetch.py", str(lab.profile), host, str(port))

    assert answer.stdout.endswith(PAGE), answer.stderr


def test_fetch_says_what_is_wrong(lab: Lab) -> None:
    answer = run(lab, "fetch.py", str(lab.profile), "127.0.0.1", "1")

    assert answer.returncode == 1
    assert answer.stderr.count(b"\n") == 1
    assert b"refused" in answer.stderr


def test_watch_upstreams_tells_that_they_are_up(lab: Lab) -> None:
    answer = run(lab, "watch_upstreams.py", str(lab.profile), "0.1")

    assert b"is up through" in answer.stdout, answer.stderr


@pytest.mark.parametrize("name", ["fetch.py", "forward.py", "watch_upstreams.py"])
def test_a_bad_profile_is_a_line_and_no_traceback(lab: Lab, tmp_path: Path, name: str) -> None:
    profile = tmp_path / "profile.toml"
    profile.write_text("lisen = 1\n")
    arguments = {"fetch.py": ("a", "1"), "forward.py": ("0", "a", "1")}.get(name, ())

    answer = run(lab, name, str(profile), *arguments)

    assert answer.returncode == 1
    assert answer.stderr.count(b"\n") == 1
    assert b"did you mean" in answer.stderr


def test_forward_forwards(lab: Lab, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = probe.getsockname()[1]
    host, port = split_host_port(lab.target("ssm").echo)
    argv = [sys.executable, str(EXAMPLES / "forward.py"), str(lab.profile), str(listen), host, str(port)]
    log = tmp_path / "forward.log"
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=lab.env)

    def connect() -> socket.socket | None:
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", listen))
        return None

    try:
        with Program(process, log).wait_for(connect) as client:
            client.sendall(b"there and back")
            client.shutdown(socket.SHUT_WR)
            client.settimeout(END)
            answer = b""
            while piece := client.recv(100):
                answer += piece
        assert answer == b"there and back"
    finally:
        process.terminate()
        process.wait()

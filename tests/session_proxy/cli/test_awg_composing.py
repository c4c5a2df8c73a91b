"""From the files of awg to daemons that could run."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_proxy.cli.awg_composing import ClientComposer, ServerComposer
from session_proxy.errors import ProfileError
from session_proxy.observability.log_settings import LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.observability.sink import LineSink
from session_proxy.policy.changes import compare
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision.awg_server import AwgServerDaemon
from session_proxy.supervision.proxy import ProxyDaemon
from tests.support.awg_files import SOUND, ClientText, ServerText

MORE = '[limits]\ndrain = 3\n[admin]\nlisten = "127.0.0.1:0"\n'


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/7"}


def written(folder: Path, name: str, text: ServerText | ClientText, mode: int = 0o600) -> Path:
    file = folder / name
    file.write_text(str(text))
    file.chmod(mode)
    return file


def test_a_server_file_becomes_a_server_of_its_name(tmp_path: Path, environ: dict[str, str]) -> None:
    file = written(tmp_path, "my edge.toml", ServerText(awg=SOUND, more=MORE))
    lines: list[str] = []

    made = ServerComposer(file=file, name=None, environ=environ)(
        make_logger(lines.append, LogSettings()), LineSink(2)
    )

    assert isinstance(made.daemon, AwgServerDaemon)
    assert (made.settings.name, made.settings.drain) == ("my-edge", 3)
    assert made.settings.admin == ListenAddress("127.0.0.1", 0)
    assert made.settings.control == Path("/run/user/7/session-proxy/my-edge.sock")
    assert made.daemon.config.state == tmp_path / ".local" / "state" / "session-proxy"
    metrics = made.daemon.render_metrics("")[0]
    assert b"sproxy_ready 0.0" in metrics
    assert b"sproxy_connections_open 0.0" in metrics
    assert b'sproxy_awg_sessions{link="laptop"} 0.0' in metrics
    assert lines == []


def test_the_state_folder_of_the_file_wins(tmp_path: Path, environ: dict[str, str]) -> None:
    text = ServerText(keys=f'state = "{tmp_path}/kept"\n{ServerText().keys}', awg=SOUND)
    file = written(tmp_path, "server.toml", text)

    made = ServerComposer(file=file, name="other", environ=environ)(
        make_logger(print, LogSettings()), LineSink(2)
    )

    assert isinstance(made.daemon, AwgServerDaemon)
    assert made.daemon.config.state == tmp_path / "kept"
    assert made.settings.name == "other"


def test_a_client_file_becomes_a_proxy_that_needs_its_server(tmp_path: Path, environ: dict[str, str]) -> None:
    """It starts without, but is not ready without."""
    file = written(tmp_path, "client.toml", ClientText(awg=SOUND, more=MORE))

    made = ClientComposer(file=file, name=None, environ=environ)(
        make_logger(print, LogSettings()), LineSink(2)
    )

    assert isinstance(made.daemon, ProxyDaemon)
    profile = made.daemon.profile
    assert (made.settings.name, profile.default, list(profile.upstreams)) == ("client", "server", ["server"])
    assert profile.startup_of("server") == "background"
    assert made.daemon.obstacles() == {"upstream server": "starting"}
    # Nothing leaves this machine but to the server.
    assert made.daemon.board.hidden == {"direct"}


@pytest.mark.parametrize(("composer", "name"), [(ClientComposer, "client"), (ServerComposer, "server")])
def test_what_the_loader_finds_is_told(
    composer: type[ClientComposer | ServerComposer], name: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    lines: list[str] = []
    log = make_logger(lines.append, LogSettings())
    open_to_all = written(
        tmp_path, f"{name}.toml", ClientText(awg=SOUND) if name == "client" else ServerText(awg=SOUND), 0o644
    )

    composer(file=open_to_all, name=None, environ=environ)(log, LineSink(2))

    assert lines
    assert all("warning profile message=" in " ".join(line.split()) for line in lines)
    with pytest.raises(ProfileError, match=r"absent\.toml"):
        composer(file=tmp_path / "absent.toml", name=None, environ=environ)(log, LineSink(2))


def test_a_client_file_is_read_again(tmp_path: Path, environ: dict[str, str]) -> None:
    file = written(tmp_path, "client.toml", ClientText(awg=SOUND))
    client = ClientComposer(file=file, name="mine", environ=environ)
    before = client.read(print)
    written(tmp_path, "client.toml", ClientText(awg=SOUND, more=MORE))

    after = client.read(print)

    assert (after.name, after.limits.drain) == ("mine", 3)
    assert set(compare(before, after).settings) == {"admin", "limits.drain"}


def test_a_server_s_file_may_be_read_anew(tmp_path: Path, environ: dict[str, str]) -> None:
    file = written(tmp_path, "edge.toml", ServerText(awg=SOUND))

    made = ServerComposer(file=file, name="other", environ=environ)(
        make_logger(print, LogSettings()), LineSink(2)
    )

    assert isinstance(made.daemon, AwgServerDaemon)
    assert made.daemon.load is not None
    assert made.daemon.load(print) == made.daemon.config
    file.unlink()
    with pytest.raises(ProfileError):
        made.daemon.load(print)

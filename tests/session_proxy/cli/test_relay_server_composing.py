"""From a ``relay.toml`` to a daemon that could run."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_proxy.cli.relay_server_composing import RelayServerComposer
from session_proxy.errors import ProfileError
from session_proxy.observability.log_settings import LogFormat, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.observability.sink import LineSink
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision.relay_fleet import RelayFleet
from session_proxy.supervision.relay_server import RelayServerDaemon
from tests.support.relay_daemon import write_relay


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/7"}


def test_a_file_becomes_a_server_of_its_name(tmp_path: Path, environ: dict[str, str]) -> None:
    file = write_relay(tmp_path, top='admin = { listen = "127.0.0.1:3002" }', more="[limits]\ndrain = 3\n")
    lines: list[str] = []

    composer = RelayServerComposer(file=file, name=None, environ=environ)
    made = composer(make_logger(lines.append, LogSettings()), LineSink(2))

    assert isinstance(made.daemon, RelayServerDaemon)
    assert made.daemon.config.name == "relay"
    assert made.daemon.config.state == tmp_path / ".local/state/session-proxy"
    assert made.settings.name == "relay"
    assert made.settings.drain == 3
    assert made.settings.admin == ListenAddress("127.0.0.1", 3002)
    assert made.settings.control == Path("/run/user/7/session-proxy/relay.sock")
    assert not made.daemon.is_ready()
    made.lifecycle.become_ready([])
    assert made.daemon.is_ready()


def test_a_name_and_a_state_folder_may_be_chosen(tmp_path: Path, environ: dict[str, str]) -> None:
    file = write_relay(tmp_path, top=f'state = "{tmp_path}/kept"')
    made = RelayServerComposer(file=file, name="edge", environ=environ)(
        make_logger(list[str]().append, LogSettings()), LineSink(2)
    )

    assert made.settings.name == "edge"
    assert isinstance(made.daemon, RelayServerDaemon)
    assert made.daemon.config.state == tmp_path / "kept"


def test_several_workers_become_a_fleet(tmp_path: Path, environ: dict[str, str]) -> None:
    store = '[store]\nredis = "redis://127.0.0.1:1/0"\n'
    file = write_relay(tmp_path, top="workers = 2", more=store)
    settings = LogSettings(log_format=LogFormat.JSON)
    composer = RelayServerComposer(file=file, name=None, log_settings=settings, environ=environ)

    made = composer(make_logger(list[str]().append, LogSettings()), LineSink(2))

    assert isinstance(made.daemon, RelayFleet)
    assert made.daemon.folder == Path("/run/user/7/session-proxy/relay.workers")
    assert made.daemon.log_settings is settings
    assert made.daemon.load(lambda _text: None) == made.daemon.config
    assert made.settings.control == Path("/run/user/7/session-proxy/relay.sock")


def test_a_bad_file_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    file = write_relay(tmp_path, top='profil = "production"')
    with pytest.raises(ProfileError, match="profil"):
        RelayServerComposer(file=file, name=None, environ=environ)(
            make_logger(list[str]().append, LogSettings()), LineSink(2)
        )

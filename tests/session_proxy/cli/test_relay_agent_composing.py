"""From an ``agent.toml`` to a daemon that could run."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_proxy.cli.relay_agent_composing import RelayAgentComposer
from session_proxy.errors import ProfileError
from session_proxy.observability.log_settings import LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.observability.sink import LineSink
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision.relay_agent import RelayAgentDaemon
from tests.support.relay_files import ENDPOINTS, TOKEN


def write_agent(folder: Path, more: str = "", services: str = '[services]\nssh = "127.0.0.1:22"\n') -> Path:
    file = folder / "agent.toml"
    file.write_text(f'name = "nas"\ntoken = "{TOKEN}"\n{ENDPOINTS}{more}{services}')
    file.chmod(0o600)
    return file


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/7"}


def test_a_file_becomes_an_agent(tmp_path: Path, environ: dict[str, str]) -> None:
    file = write_agent(tmp_path, 'admin = { listen = "127.0.0.1:3004" }\nlimits = { drain = 3 }\n')
    made = RelayAgentComposer(file=file, name=None, environ=environ)(
        make_logger(list[str]().append, LogSettings()), LineSink(2)
    )

    assert isinstance(made.daemon, RelayAgentDaemon)
    assert made.daemon.config.name == "nas"
    assert made.daemon.config.state == tmp_path / ".local/state/session-proxy"
    assert made.settings.name == "agent"
    assert made.settings.drain == 3
    assert made.settings.admin == ListenAddress("127.0.0.1", 3004)
    assert made.settings.control == Path("/run/user/7/session-proxy/agent.sock")


def test_a_name_may_be_chosen(tmp_path: Path, environ: dict[str, str]) -> None:
    made = RelayAgentComposer(file=write_agent(tmp_path), name="home", environ=environ)(
        make_logger(list[str]().append, LogSettings()), LineSink(2)
    )

    assert made.settings.name == "home"
    assert isinstance(made.daemon, RelayAgentDaemon)
    assert made.daemon.config.control == "home"


def test_the_file_may_be_read_anew(tmp_path: Path, environ: dict[str, str]) -> None:
    file = write_agent(tmp_path)
    made = RelayAgentComposer(file=file, name="home", environ=environ)(
        make_logger(list[str]().append, LogSettings()), LineSink(2)
    )

    assert isinstance(made.daemon, RelayAgentDaemon)
    assert made.daemon.load is not None
    assert made.daemon.load(list[str]().append) == made.daemon.config
    file.unlink()
    with pytest.raises(ProfileError):
        made.daemon.load(list[str]().append)


def test_a_bad_file_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ProfileError, match="services"):
        RelayAgentComposer(file=write_agent(tmp_path, services=""), name=None, environ=environ)(
            make_logger(list[str]().append, LogSettings()), LineSink(2)
        )

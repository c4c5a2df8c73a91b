"""The process of a worker, up to where it serves."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import attrs
import pytest

from session_proxy.cli import relay_worker
from session_proxy.cli.daemons import Composition
from session_proxy.cli.relay_worker import compose, run_worker, say
from session_proxy.errors import ExitCode, ListenError
from session_proxy.observability.log_settings import LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.observability.sink import LineSink
from session_proxy.supervision.relay_server import RelayServerDaemon
from session_proxy.supervision.relay_worker import Orders, Post
from session_proxy.supervision.worker_process import Report
from tests.support.relay_daemon import load_relay


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    server = attrs.evolve(load_relay(tmp_path, top='admin = { listen = "127.0.0.1:0" }'), workers=2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Orders(server=server, log=LogSettings(), sockets=(listener.detach(),))


def made(orders: Orders) -> Composition:
    return compose(Post(Path("/run/a"), 2), orders, make_logger(print, LogSettings()), LineSink(2))


def test_a_worker_is_a_server_with_its_share(orders: Orders, capfd: pytest.CaptureFixture[str]) -> None:
    composition = made(orders)
    daemon = composition.daemon
    assert isinstance(daemon, RelayServerDaemon)
    assert (daemon.config.name, daemon.config.admin) == ("relay.worker-2", None)
    assert daemon.config.limits.connections == 5000
    assert (composition.settings.admin, composition.settings.control) == (None, Path("/run/a/2.sock"))
    assert daemon.sockets is not None
    assert [sock.fileno() for sock in daemon.sockets] == list(orders.sockets)
    assert not daemon.is_ready()
    composition.lifecycle.become_ready([])
    assert daemon.is_ready()
    composition.on_ready()
    assert json.loads(capfd.readouterr().out) == attrs.asdict(Report(ready=True))
    for sock in daemon.sockets:
        sock.close()


def test_without_a_fleet_it_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_worker(Post(tmp_path, 1)) is ExitCode.UNREACHABLE
    out, err = capfd.readouterr()
    report = Report(**json.loads(out))
    assert (report.ready, report.exit_code, err) == (False, 69, "")
    assert "fleet.sock" in report.problems[0]


def test_what_fails_is_said(
    orders: Orders, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for failure, code in ((ListenError("a\nb"), ExitCode.FAILURE), (OSError("c"), ExitCode.FAILURE)):

        def fail(*_arguments: object, failure: Exception = failure) -> ExitCode:
            raise failure

        async def give(_post: Post) -> Orders:
            return orders

        monkeypatch.setattr(Post, "orders", give)
        monkeypatch.setattr(relay_worker, "run_daemon", fail)
        assert run_worker(Post(Path(), 1)) is code
        assert json.loads(capfd.readouterr().out)["problems"] == str(failure).splitlines()


def test_there_may_be_nobody_to_say_it_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_worker, "STDOUT", -1)
    say(Report(ready=True))

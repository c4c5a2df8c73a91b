"""The shell, around a daemon that does as the test says."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from session_proxy.errors import ControlError, ExitCode, NameTakenError, UpstreamStartError
from session_proxy.observability.http import Handler, HttpAnswer, HttpRequest
from session_proxy.observability.log_settings import LogFormat, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.policy.changes import Changes
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision.control_client import ask
from session_proxy.supervision.control_socket import open_control_socket
from session_proxy.supervision.lifecycle import Lifecycle
from session_proxy.supervision.service import CLOSING, ServiceSettings, run_service

LISTEN = ListenAddress("127.0.0.1", 4711)
ANY = ListenAddress("127.0.0.1", 0)


@attrs.define(eq=False)
class FakeDaemon:
    """A daemon that listens when *may_listen* is set, and has one client that leaves when *client* is."""

    may_listen: trio.Event = attrs.field(factory=trio.Event)
    client: trio.Event = attrs.field(factory=trio.Event)
    stopping: trio.Event = attrs.field(factory=trio.Event)
    failure: Exception | None = None
    broken: dict[str, str] = attrs.field(factory=dict[str, str])
    impaired: dict[str, str] = attrs.field(factory=dict[str, str])
    file: str | None = None

    async def serve(self, stop: trio.Event, *, task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
        await self.may_listen.wait()
        if self.failure is not None:
            raise self.failure
        task_status.started([LISTEN])
        await stop.wait()
        self.stopping.set()
        await self.client.wait()

    def obstacles(self) -> Mapping[str, str]:
        return self.broken

    def handicaps(self) -> Mapping[str, str]:
        return self.impaired

    def status(self) -> Mapping[str, object]:
        return {"own": "facts", "file": self.file}

    def pages(self) -> Mapping[tuple[str, str], Handler]:
        async def own(_request: HttpRequest) -> HttpAnswer:
            return HttpAnswer.text("own page")

        return {("GET", "/own"): own}

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        return b"metrics\n", accept or "text/plain"


@attrs.define(eq=False)
class Running:
    """A daemon in its shell, and what came of it."""

    daemon: FakeDaemon
    lifecycle: Lifecycle
    control: Path
    nursery: trio.Nursery
    lines: list[dict[str, str]] = attrs.field(factory=list[dict[str, str]])
    tree: list[str] = attrs.field(factory=list[str])
    readied: list[str] = attrs.field(factory=list[str])
    exit_code: ExitCode | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)

    @property
    def said(self) -> list[str]:
        return [line["event"] for line in self.lines]

    async def run(self, admin: ListenAddress | None) -> None:
        settings = ServiceSettings(name="dev", drain=10, admin=admin, control=self.control)
        log = make_logger(
            lambda line: self.lines.append(json.loads(line)), LogSettings(log_format=LogFormat.JSON)
        )
        self.exit_code = await run_service(
            self.daemon,
            settings,
            self.lifecycle,
            log=log,
            dump=lambda lines: self.tree.extend(lines),
            on_ready=lambda: self.readied.append("once"),
        )
        self.ended.set()

    async def get(self, path: str, method: str = "GET") -> bytes:
        return await ask(self.control, method, path)


@asynccontextmanager
async def open_running(
    tmp_path: Path,
    daemon: FakeDaemon | None = None,
    *,
    admin: ListenAddress | None = None,
    listening: bool = True,
) -> AsyncGenerator[Running]:
    daemon = daemon or FakeDaemon()
    if listening:
        daemon.may_listen.set()
    async with trio.open_nursery() as nursery:
        running = Running(daemon, Lifecycle(), tmp_path / "run" / "dev.sock", nursery)
        nursery.start_soon(running.run, admin)
        await trio.testing.wait_all_tasks_blocked()
        yield running
        nursery.cancel_scope.cancel()


async def test_a_daemon_is_ready_when_it_listens(tmp_path: Path) -> None:
    async with open_running(tmp_path, admin=ANY) as running:
        status = json.loads(await running.get("/status"))

        [line] = running.lines
        assert running.readied == ["once"]
        assert (line["event"], line["name"], line["listen"]) == ("ready", "dev", "127.0.0.1:4711")
        assert line["admin"] == status["admin"][0]
        assert (status["state"], status["ready"], status["listen"]) == ("ready", True, ["127.0.0.1:4711"])
        assert (status["pid"], status["own"]) == (os.getpid(), "facts")
        assert await running.get("/readyz") == b'{"ready": true, "reasons": {}}\n'
        assert await running.get("/own") == b"own page\n"
        assert await running.get("/metrics") == b"metrics\n"


async def test_a_start_that_takes_its_time_can_be_looked_into(tmp_path: Path) -> None:
    daemon = FakeDaemon(broken={"upstream dev": "starting"})
    async with open_running(tmp_path, daemon, listening=False) as running:
        assert await running.get("/healthz") == b"ok\n"
        with pytest.raises(ControlError, match="503"):
            await running.get("/readyz")
        status = json.loads(await running.get("/status"))
        assert status["reasons"] == {"dev": "starting", "upstream dev": "starting"}

        daemon.may_listen.set()
        daemon.broken.clear()
        await trio.testing.wait_all_tasks_blocked()
        assert b"true" in await running.get("/readyz")


async def test_a_required_part_that_fails_later_makes_it_unready(tmp_path: Path) -> None:
    async with open_running(tmp_path) as running:
        running.daemon.broken["upstream dev"] = "down: gone"

        with pytest.raises(ControlError, match=r"upstream dev.*down: gone.*503"):
            await running.get("/readyz")
        assert json.loads(await running.get("/status"))["state"] == "ready"


async def test_what_is_impaired_is_told_and_is_ready(tmp_path: Path) -> None:
    async with open_running(tmp_path) as running:
        running.daemon.impaired["store"] = "Redis is away"

        answer = await running.get("/readyz")
        assert json.loads(answer) == {"ready": True, "reasons": {"store": "Redis is away"}}
        status = json.loads(await running.get("/status"))
        assert (status["ready"], status["reasons"]) == (True, {"store": "Redis is away"})


@attrs.define(eq=False)
class GatheringDaemon(FakeDaemon):
    """A daemon that knows nothing unless it has asked."""

    gathered: int = 0

    async def gather(self) -> None:
        await trio.lowlevel.checkpoint()
        self.gathered += 1

    def status(self) -> Mapping[str, object]:
        return {"gathered": self.gathered}

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        return f"gathered {self.gathered}\n".encode(), accept


async def test_what_is_told_was_asked_for_anew(tmp_path: Path) -> None:
    daemon = GatheringDaemon()
    async with open_running(tmp_path, daemon) as running:
        assert json.loads(await running.get("/status"))["gathered"] == 1
        assert await running.get("/metrics") == b"gathered 2\n"
        await running.get("/readyz")
        # Whether it lives depends on nobody else.
        await running.get("/healthz")
        assert daemon.gathered == 3


async def test_the_admin_address_has_no_control(tmp_path: Path) -> None:
    async with open_running(tmp_path, admin=ANY) as running:
        host, _, port = running.lines[0]["admin"].rpartition(":")
        answers: list[bytes] = []
        for request in (b"GET /own", b"GET /status", b"POST /drain"):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(request + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                answers.append(bytes(await stream.receive_some()))

        assert [answer.split()[1] for answer in answers] == [b"200", b"404", b"404"]
        assert not running.lifecycle.stop.is_set()


async def test_a_drain_lets_clients_finish(tmp_path: Path) -> None:
    async with open_running(tmp_path) as running:
        assert json.loads(await running.get("/drain", "POST")) == {"state": "draining", "limit": 10}
        await running.daemon.stopping.wait()
        with pytest.raises(ControlError, match=r"draining.*503"):
            await running.get("/readyz")

        running.daemon.client.set()
        await running.ended.wait()

        assert running.exit_code is ExitCode.OK
        assert running.said == ["ready", "draining", "stopped"]
        assert not running.control.exists()


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, ExitCode.OK), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
async def test_a_signal_drains(tmp_path: Path, signum: signal.Signals, code: ExitCode) -> None:
    async with open_running(tmp_path) as running:
        os.kill(os.getpid(), signum)
        await running.daemon.stopping.wait()
        assert not running.ended.is_set()

        running.daemon.client.set()
        await running.ended.wait()

        assert running.exit_code is code


async def test_a_second_signal_waits_for_nobody(tmp_path: Path) -> None:
    async with open_running(tmp_path) as running:
        os.kill(os.getpid(), signal.SIGTERM)
        await running.daemon.stopping.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await running.ended.wait()

        assert running.exit_code is ExitCode.OK


async def test_a_signal_during_the_start_ends_it(tmp_path: Path) -> None:
    async with open_running(tmp_path, listening=False) as running:
        os.kill(os.getpid(), signal.SIGINT)
        await running.ended.wait()

        assert running.exit_code is ExitCode.INTERRUPTED
        assert "ready" not in running.said
        assert running.readied == []


async def test_a_daemon_that_does_not_drain_in_time_is_cut(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_running(tmp_path) as running:
        running.lifecycle.drain()
        await running.ended.wait()

        assert trio.current_time() == pytest.approx(10 + CLOSING)


async def test_sigusr1_shows_the_tasks(tmp_path: Path) -> None:
    async with open_running(tmp_path) as running:
        os.kill(os.getpid(), signal.SIGUSR1)
        while not running.tree:
            await trio.lowlevel.checkpoint()

        assert any("FakeDaemon.serve" in line for line in running.tree)


async def test_what_ends_a_daemon_comes_out_as_it_was_raised(tmp_path: Path) -> None:
    daemon = FakeDaemon(failure=UpstreamStartError("dev", "no credentials"))
    daemon.may_listen.set()
    settings = ServiceSettings(name="dev", drain=1)

    with pytest.raises(UpstreamStartError, match="upstream dev: no credentials"):
        await run_service(
            daemon, settings, Lifecycle(), log=make_logger(lambda _: None, LogSettings()), dump=lambda _: None
        )


@pytest.mark.parametrize(("file", "says"), [("/etc/dev.toml", ": /etc/dev.toml"), (None, "")])
async def test_two_of_one_name_do_not_run(tmp_path: Path, file: str | None, says: str) -> None:
    async with open_running(tmp_path, FakeDaemon(file=file)) as running:
        settings = ServiceSettings(name="dev", drain=1, control=running.control)
        log = make_logger(lambda _: None, LogSettings())

        with pytest.raises(NameTakenError, match=rf'^"dev" runs already{says} \(process {os.getpid()}\); '):
            await run_service(FakeDaemon(), settings, Lifecycle(), log=log, dump=lambda _: None)
        assert b"ok" in await running.get("/healthz")


async def test_one_of_its_name_that_does_not_answer_is_named_all_the_same(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "dev.sock"
    settings = ServiceSettings(name="dev", drain=1, control=path)
    log = make_logger(lambda _: None, LogSettings())

    with (
        open_control_socket(path),
        pytest.raises(NameTakenError, match=rf"already \(process {os.getpid()}\)"),
    ):
        await run_service(FakeDaemon(), settings, Lifecycle(), log=log, dump=lambda _: None)


async def test_without_a_place_for_the_socket_it_runs_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    async with open_running(tmp_path) as running:
        assert running.said == ["no control socket", "ready"]
        assert running.lines[0]["level"] == "warning"


@attrs.frozen(eq=False)
class FakeChange:
    """A change of the drain's limit and the addresses."""

    changes: Changes = attrs.field(factory=lambda: Changes(listen=True))
    admin: ListenAddress | None = None
    drain: float = 3.0

    def commit(self) -> Sequence[ListenAddress]:
        return [ListenAddress("127.0.0.1", 4712)]


class ReloadableDaemon(FakeDaemon):
    """A daemon that takes over whatever its file says."""

    @asynccontextmanager
    async def prepare(self) -> AsyncGenerator[FakeChange]:
        await trio.lowlevel.checkpoint()
        yield FakeChange()


async def test_a_service_is_reloaded_over_its_control_socket(tmp_path: Path) -> None:
    daemon = ReloadableDaemon()
    async with open_running(tmp_path, daemon, admin=ANY) as running:
        assert json.loads(await running.get("/status"))["admin"] != []

        report = json.loads(await running.get("/reload", "POST"))

        assert report == {"done": True, "changes": ["changed: listen"], "problems": [], "exit_code": 0}
        status = json.loads(await running.get("/status"))
        assert (status["listen"], status["admin"], status["state"]) == (["127.0.0.1:4712"], [], "ready")
        daemon.client.set()
        assert json.loads(await running.get("/drain", "POST")) == {"state": "draining", "limit": 3.0}
        await running.ended.wait()
    assert [line["limit"] for line in running.lines if line["event"] == "draining"] == [3.0]


async def test_a_hang_up_reloads_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        async with open_running(tmp_path, ReloadableDaemon()) as running:
            os.kill(os.getpid(), signal.SIGHUP)
            while "reloaded" not in running.said:
                await trio.testing.wait_all_tasks_blocked()
            assert running.exit_code is None
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_what_cannot_be_reloaded_goes_on(tmp_path: Path) -> None:
    async with open_running(tmp_path) as running:
        report = json.loads(await running.get("/reload", "POST"))

        assert report["problems"] == ["dev cannot take over its file while it runs; restart it"]
        assert (report["done"], report["exit_code"]) == (False, 1)
        assert json.loads(await running.get("/status"))["state"] == "ready"

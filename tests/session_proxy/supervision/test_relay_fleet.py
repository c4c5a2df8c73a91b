"""A fleet in this process, and its workers, which are real; without a store, for they need none to be there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio

from session_proxy.errors import ListenError, NameTakenError, ProfileError, ReloadError, WorkerStartError
from session_proxy.observability.http import HttpRequest
from session_proxy.observability.log_settings import LogFormat, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.relay_model import RelayServer
from session_proxy.supervision import relay_fleet
from session_proxy.supervision.fleet_view import AWAY
from session_proxy.supervision.relay_fleet import RelayFleet
from session_proxy.supervision.relay_pages import METRICS_PATH
from session_proxy.supervision.relay_worker import Post
from session_proxy.supervision.reload import Reloadable
from session_proxy.supervision.service import Gathering, Handicapped
from tests.support.folders import runtime_folder
from tests.support.relay_daemon import load_relay, open_link
from tests.support.relay_tokens import make_token
from tunnel_relay.errors import WebSocketRejectedError
from tunnel_relay.protocol.upgrade import CONNECT_PATH, HEALTH_PATH

SECONDS = 90
SETTINGS = LogSettings(log_format=LogFormat.JSON)


def load(folder: Path, *, workers: int = 2, **parts: str) -> RelayServer:
    return attrs.evolve(load_relay(folder, **parts), workers=workers)


@attrs.define(eq=False)
class Served:
    """A fleet, where it is reached, and its log; *over* is set when it has returned."""

    fleet: RelayFleet
    address: ListenAddress
    log: list[dict[str, object]]
    stop: trio.Event
    over: trio.Event = attrs.field(factory=trio.Event)

    async def workers(self) -> list[dict[str, object]]:
        await self.fleet.gather()
        return cast("list[dict[str, object]]", self.fleet.status()["workers"])

    async def wait_for(self, **fields: object) -> None:
        """Wait until there is a worker with these fields in its status."""
        while not any(fields.items() <= worker.items() for worker in await self.workers()):  # noqa: ASYNC110
            await trio.sleep(0.02)


async def come(url: str, token: str, times: int) -> None:
    """Be linked so many times at once."""
    async with AsyncExitStack() as stack:
        for _ in range(times):
            await stack.enter_async_context(open_link(url, token))


def make_fleet(server: RelayServer, log: list[dict[str, object]], folder: Path | None = None) -> RelayFleet:
    logger = make_logger(lambda line: log.append(json.loads(line)), SETTINGS)
    folder = folder or Path(runtime_folder(), "relay.workers")
    return RelayFleet(server, logger, SETTINGS, folder, lambda _warn: server)


@asynccontextmanager
async def open_fleet(server: RelayServer) -> AsyncGenerator[Served]:
    log: list[dict[str, object]] = []
    fleet, stop = make_fleet(server, log), trio.Event()
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
                await fleet.serve(stop, task_status=task_status)
                served.over.set()

            served = Served(fleet, ListenAddress("", 0), log, stop)
            [served.address] = await nursery.start(serve)
            yield served
            stop.set()
    assert not fleet.folder.exists()


async def test_workers_are_shown_together(tmp_path: Path) -> None:
    async with open_fleet(load(tmp_path)) as served:
        fleet, url = served.fleet, f"ws://{served.address}{CONNECT_PATH}"
        assert isinstance(fleet, Gathering)
        assert isinstance(fleet, Handicapped)
        assert [worker["state"] for worker in await served.workers()] == ["ready", "ready"]
        assert (fleet.obstacles(), fleet.handicaps()) == ({}, {})
        alice, bob = make_token("alice"), make_token("bob")
        async with open_link(url, alice), open_link(url, bob):
            await served.workers()
            assert fleet.status()["clients"] == 2
            assert sum(int(str(worker["clients"])) for worker in await served.workers()) == 2
        pages = fleet.pages()
        request = HttpRequest(method="GET", path=METRICS_PATH)
        text = (await pages["GET", METRICS_PATH](request)).body.decode()
        for number in (1, 2):
            assert f'\ntunnel_queue_size{{worker="{number}"}} 0.0\n' in text
        assert (await pages["GET", HEALTH_PATH](request)).status == 200


async def test_who_comes_while_all_drain_is_turned_away(tmp_path: Path) -> None:
    async with open_fleet(load(tmp_path)) as served:
        pids = [worker["pid"] for worker in await served.workers()]
        served.stop.set()
        await served.over.wait()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(served.address.host, served.address.port)
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(int(str(pid)), 0)


async def test_one_that_is_away_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_fleet, "PATIENCE", 0.3)
    async with open_fleet(load(tmp_path)) as served:
        fleet = served.fleet
        first, second = (int(str(worker["pid"])) for worker in await served.workers())
        os.kill(first, signal.SIGSTOP)
        await served.wait_for(worker=1, state=AWAY)
        assert (fleet.obstacles(), fleet.handicaps()) == ({}, {"worker 1": "does not answer"})
        assert b'\nsproxy_relay_worker_up{worker="1"} 0.0\n' in fleet.render_metrics("")[0]
        os.kill(second, signal.SIGSTOP)
        await served.wait_for(worker=2, state=AWAY)
        assert fleet.obstacles() == {"workers": "none of them is there"}
        os.kill(first, signal.SIGKILL)
        os.kill(second, signal.SIGCONT)
        await served.wait_for(worker=1, state="ready", restarts=1)
        await served.wait_for(worker=2, state="ready", restarts=0)
        assert fleet.obstacles() == {}


async def test_a_file_is_taken_over_by_all(tmp_path: Path) -> None:
    async with open_fleet(load(tmp_path)) as served:
        fleet = served.fleet
        assert isinstance(fleet, Reloadable)
        new = load(tmp_path, more="[limits]\ndrain = 3\nconnections = 500\n[tiers.free]\nconnections = 1\n")
        fleet.load = lambda _warn: new
        async with fleet.prepare() as change:
            assert change.drain == 3
            assert change.commit() == [served.address]
        for number in (1, 2):
            orders = await Post(fleet.folder, number).orders()
            assert orders.server == new
        url = f"ws://{served.address}{CONNECT_PATH}"
        # One at each worker: there is no store, in which they could agree that this is one too many.
        with pytest.raises(WebSocketRejectedError, match="429"):
            await come(url, make_token("alice"), 3)


async def test_nothing_changes_where_it_cannot(tmp_path: Path) -> None:
    async with open_fleet(load(tmp_path)) as served:
        fleet, old = served.fleet, served.fleet.config
        for new in (load(tmp_path, workers=3), load(tmp_path, audit='"other.jsonl"')):
            fleet.load = lambda _warn, new=new: new
            with pytest.raises(ReloadError, match="cannot change while the server runs; restart it"):
                async with fleet.prepare():
                    pass
        fleet.load = lambda _warn: load_relay(tmp_path, more="nonsense = 1\n")
        with pytest.raises(ProfileError):
            async with fleet.prepare():
                pass
        # Ready, but not wanted after all.
        fleet.load = lambda _warn: load(tmp_path, more="[limits]\ndrain = 3\n")
        async with fleet.prepare():
            pass
        assert fleet.config is old


async def test_one_that_cannot_take_it_over_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_fleet, "TAKING_OVER", 0.5)
    monkeypatch.setattr(relay_fleet, "PATIENCE", 0.3)
    async with open_fleet(load(tmp_path)) as served:
        fleet = served.fleet
        first, second = (int(str(worker["pid"])) for worker in await served.workers())
        os.kill(first, signal.SIGSTOP)
        os.kill(second, signal.SIGTERM)
        await served.wait_for(worker=2, restarts=1, state="ready")
        fleet.load = lambda _warn: load(tmp_path, more="[limits]\ndrain = 3\n")
        async with fleet.prepare() as change:
            change.commit()
        await served.wait_for(worker=1, restarts=1, state="ready")
        assert [line["message"] for line in served.log if line["event"] == "worker replaced"] == [
            "not reloaded: no answer in 0.5 s"
        ]


async def test_one_that_cannot_start_ends_all(tmp_path: Path) -> None:
    server, log = load(tmp_path), list[dict[str, object]]()
    (tmp_path / "audit.worker-2.jsonl").mkdir()
    fleet = make_fleet(server, log)
    with pytest.raises(WorkerStartError) as caught, trio.fail_after(SECONDS):
        await fleet.serve(trio.Event(), task_status=trio.TASK_STATUS_IGNORED)
    assert (str(caught.value), caught.value.exit_code) == (
        f"{tmp_path}/audit.worker-2.jsonl: is a directory; name a file in a folder that is yours as audit.file",
        78,
    )
    assert not fleet.folder.exists()
    assert all(worker.over.is_set() for worker in fleet._workers.values())


async def test_there_has_to_be_a_place_for_sockets(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fleet = make_fleet(load(tmp_path), [], tmp_path / "file" / "relay.workers")
    with pytest.raises(ListenError, match=r"relay\.workers: not a directory; .*set XDG_RUNTIME_DIR"):
        await fleet.serve(trio.Event(), task_status=trio.TASK_STATUS_IGNORED)
    assert all(sock.fileno() == -1 for sock in fleet._sockets)


async def test_the_place_of_another_fleet_is_left_alone(tmp_path: Path) -> None:
    async with open_fleet(load(tmp_path)) as served:
        other = make_fleet(load(tmp_path), [], served.fleet.folder)
        with pytest.raises(NameTakenError):
            await other.serve(trio.Event(), task_status=trio.TASK_STATUS_IGNORED)
        assert [worker["state"] for worker in await served.workers()] == ["ready", "ready"]

"""``sproxy relay-server`` with several workers: what one of them has is there for all, and goes on without it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio

from tests.support.curl import curl, needs_curl
from tests.support.programs import END, Sproxy, run_sproxy
from tests.support.redis_server import RedisServer, needs_redis, open_redis
from tests.support.relay_clients import open_agent, open_client
from tests.support.relay_cluster import echo
from tests.support.relay_daemon import read_audit, start_relay_server, write_relay
from tests.support.relay_tokens import make_certificate
from tests.support.sproxy import clean_environ
from tests.support.tunnels import eventually, open_destination
from tunnel_relay.policy.backoff import BackoffSettings
from tunnel_relay.policy.selector import SelectorSettings
from tunnel_relay.sessions import RelayStream

SECONDS = 120
TOP = 'workers = 2\nmetrics_token = "file:secret"\nadmin = { listen = "127.0.0.1:0" }'

CLUSTER = '[cluster]\nlisten = "127.0.0.1:0"\ncertificate = "cert.pem"\nkey = "key.pem"\nca = "cert.pem"\n'

# Workers end more often here than a client expects.
SELECTOR = SelectorSettings(backoff=BackoffSettings(first=0.3, factor=1.0))

# Clients, each of which is at a worker by chance, until there is one where it is to be.
MOST_CLIENTS = 40


def store(redis: RedisServer) -> str:
    return f'[store]\nredis = "{redis.url}"\n'


def is_alive(pid: int) -> bool:
    """Return whether there is such a process, and not only what is left of it until somebody asks."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def left_in(environ: Mapping[str, str]) -> list[str]:
    return [path.name for path in Path(environ["XDG_RUNTIME_DIR"], "session-proxy").iterdir()]


@attrs.define(eq=False)
class Fleet:
    """A running relay with workers, asked by its commands."""

    relay: Sproxy
    environ: dict[str, str]

    @property
    def url(self) -> str:
        return f"ws://{self.relay.address}"

    def status(self) -> dict[str, object]:
        return json.loads(run_sproxy("status", "--name", "relay", "--json", env=self.environ).stdout)

    def workers(self) -> list[dict[str, int | str]]:
        return cast("list[dict[str, int | str]]", self.status()["workers"])

    def pids(self) -> list[int]:
        return [int(worker["pid"]) for worker in self.workers()]

    def left(self) -> list[str]:
        """Return what is left in the folder of sockets."""
        return left_in(self.environ)


@contextmanager
def open_fleet(folder: Path, *, top: str = TOP, more: str) -> Generator[Fleet]:
    environ = clean_environ(folder)
    file = write_relay(folder, top=top, more=more)
    with start_relay_server(file, env=environ) as relay:
        yield Fleet(relay, environ)


async def says(stream: RelayStream, word: bytes) -> None:
    """See to it that *word* is echoed."""
    await stream.send_all(word)
    echoed = b""
    while len(echoed) < len(word):
        echoed += await stream.receive_some()
    assert echoed == word


@asynccontextmanager
async def open_streams(fleet: Fleet) -> AsyncGenerator[list[RelayStream]]:
    """Have an agent, and streams to it from clients of which at least one is at another worker, and one at its own."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(open_destination(echo))
        await stack.enter_async_context(open_agent(fleet.url, {"echo": port}, selector=SELECTOR))
        await eventually(lambda: fleet.status()["agents"] == 1)
        streams: list[RelayStream] = []
        while not all(worker["clients"] for worker in fleet.workers()):
            assert len(streams) < MOST_CLIENTS
            client = open_client(fleet.url, agent="nas", selector=SELECTOR)
            stream = (await stack.enter_async_context(client)).open_stream("echo")
            await stream.wait_accepted()
            streams.append(stream)
        yield streams


@needs_redis
async def test_streams_outlive_each_worker(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_redis() as redis:
            with open_fleet(tmp_path, more=store(redis)) as fleet:
                async with open_streams(fleet) as streams:
                    for stream in streams:
                        await says(stream, b"hello")
                    assert fleet.relay.find("peer linked")
                    status = fleet.status()
                    assert (status["clients"], status["agents"]) == (len(streams), 1)
                    # The one with the agent comes first.
                    order = sorted(fleet.workers(), key=lambda worker: -int(worker["agents"]))
                    for worker in order:
                        os.kill(int(worker["pid"]), signal.SIGKILL)
                        for stream in streams:
                            await says(stream, b"still here")
                        number = worker["worker"]
                        await eventually(
                            lambda number=number: any(
                                each["worker"] == number
                                and each["state"] == "ready"
                                and each["restarts"] == 1
                                for each in fleet.workers()
                            )
                        )
                        line = fleet.relay.find("worker ended", worker=number)
                        assert line is not None
                        assert line["message"] == "was ended by SIGKILL"
                    pids = fleet.pids()
                assert fleet.relay.stop() == 0
                assert not any(map(is_alive, pids))
                assert fleet.left() == []
    for number in (1, 2):
        assert read_audit(tmp_path / f"audit.worker-{number}.jsonl")
    assert not (tmp_path / "audit.jsonl").exists()


@needs_curl
@needs_redis
async def test_all_are_shown_and_told_everywhere(tmp_path: Path) -> None:
    async with open_redis() as redis:
        with open_fleet(tmp_path, more=store(redis)) as fleet:
            relay, secret = fleet.relay, (tmp_path / "secret").read_text()
            bearer = f"Authorization: Bearer {secret}"
            for page in (
                curl(f"http://{relay.admin}/metrics").stdout,
                curl(f"http://{relay.admin}/api/tunnel/metrics").stdout,
                curl("--header", bearer, f"http://{relay.address}/metrics").stdout,
            ):
                for number in (1, 2):
                    assert b'\ntunnel_queue_size{worker="%d"} 0.0\n' % number in page
                    assert b'\nsproxy_relay_worker_up{worker="%d"} 1.0\n' % number in page
                assert page.count(b"# TYPE tunnel_queue_size gauge\n") == 1
            assert curl(f"http://{relay.admin}/readyz").stdout == b"ready\n"
            shown = run_sproxy("status", "--name", "relay", env=fleet.environ).stdout
            assert "WORKER  STATE" in shown
            redis.stop()
            await eventually(lambda: b"worker 2: store: " in curl(f"http://{relay.admin}/readyz").stdout)


@needs_redis
async def test_a_file_is_taken_over_by_all_or_by_none(tmp_path: Path) -> None:
    async with open_redis() as redis:
        with open_fleet(tmp_path, more=store(redis)) as fleet:

            def reload() -> tuple[int, str]:
                done = run_sproxy("reload", "--name", "relay", env=fleet.environ)
                return done.returncode, done.stdout + done.stderr

            write_relay(tmp_path, top=TOP, more=f"{store(redis)}[limits]\ndrain = 7\nmemory = 2_000_000\n")
            assert reload() == (0, "changed: limits.memory, limits.drain\n")
            for number in (1, 2):
                line = fleet.relay.find("reloaded", worker=number)
                assert line is not None
                assert line["changes"] == "changed: limits.memory, limits.drain"
            lines = len(fleet.relay.events())
            write_relay(tmp_path, top=TOP, more=f"{store(redis)}[limits]\ndrain = -7\n")
            code, said = reload()
            assert (code, said.count("\n")) == (78, 1)
            write_relay(tmp_path, top=TOP.replace("2", "3", 1), more=store(redis))
            code, said = reload()
            assert (code, said) == (1, "sproxy: workers cannot change while the server runs; restart it\n")
            assert {line["event"] for line in fleet.relay.events()[lines:]} <= {"not reloaded", "profile"}
            # A worker that comes later has what the others have.
            pid = fleet.pids()[0]
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: fleet.workers()[0]["state"] == "ready")
            fleet.relay.process.send_signal(signal.SIGTERM)
            assert fleet.relay.process.wait(END) == 0
            draining = fleet.relay.find("draining", worker=1)
            assert draining is not None
            assert draining["limit"] == 7


@needs_redis
async def test_without_the_one_that_started_them_they_end(tmp_path: Path) -> None:
    async with open_redis() as redis:
        with open_fleet(tmp_path, more=store(redis)) as fleet:
            pids = fleet.pids()
            assert all(map(is_alive, pids))
            fleet.relay.process.kill()
            await eventually(lambda: not any(map(is_alive, pids)))
        # Nothing is in the way of the next one.
        with open_fleet(tmp_path, more=store(redis)) as fleet:
            # Whoever ends everything at once does no harm.
            for pid in fleet.pids():
                os.kill(pid, signal.SIGTERM)
            assert fleet.relay.stop(signal.SIGINT) == 130
            assert fleet.left() == []


@needs_redis
async def test_a_worker_that_cannot_start(tmp_path: Path) -> None:
    environ = clean_environ(tmp_path)
    async with open_redis() as redis:
        file = write_relay(tmp_path, top=TOP, more=store(redis))
        audit = tmp_path / "audit.worker-2.jsonl"
        audit.write_text("nonsense\n")
        done = run_sproxy("relay-server", str(file), "--log-level", "error", env=environ)
    said = f"sproxy: {audit}: its last line is no entry of an audit log; move it away, and keep it\n"
    assert (done.returncode, done.stderr) == (78, said)
    assert left_in(environ) == []


@pytest.mark.parametrize("more", ["", '[store]\nprefix = "a:"\n'])
def test_workers_need_a_store(tmp_path: Path, more: str) -> None:
    file = write_relay(tmp_path, top="workers = 2", more=more)
    done = run_sproxy("relay-server", str(file), env=clean_environ(tmp_path))
    fix = 'write [store] with redis = "redis://127.0.0.1:6379/0", for example, or workers = 1'
    said = f"sproxy: {file}: workers: 2 processes have nothing to agree in; {fix}\n"
    assert (done.returncode, done.stderr) == (78, said)


@needs_redis
async def test_workers_beside_another_server(tmp_path: Path) -> None:
    """Both are servers of one relay: what is linked to the other one is reached from each worker."""
    certificate, tops = make_certificate(), {"one": TOP, "two": ""}
    with trio.fail_after(SECONDS):
        async with open_redis() as redis, AsyncExitStack() as stack:
            urls: dict[str, str] = {}
            fleets: list[Fleet] = []
            for name, top in tops.items():
                folder = tmp_path / name
                folder.mkdir()
                certificate.write(folder)
                fleet = stack.enter_context(open_fleet(folder, top=top, more=store(redis) + CLUSTER))
                urls[name] = fleet.url
                fleets.append(fleet)
            port = await stack.enter_async_context(open_destination(echo))
            await stack.enter_async_context(open_agent(urls["two"], {"echo": port}, selector=SELECTOR))
            await eventually(lambda: fleets[1].status()["agents"] == 1)
            streams = 0
            while not all(worker["clients"] for worker in fleets[0].workers()):
                assert streams < MOST_CLIENTS
                client = open_client(urls["one"], agent="nas", selector=SELECTOR)
                stream = (await stack.enter_async_context(client)).open_stream("echo")
                await stream.wait_accepted()
                await says(stream, b"hello")
                streams += 1

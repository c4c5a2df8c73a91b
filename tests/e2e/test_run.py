"""``sproxy run`` from its first line to its exit code, as a process."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.errors import ControlError
from session_proxy.supervision.control_client import ask
from session_proxy.supervision.places import control_path
from tests.support.sproxy import PATIENCE, PROGRAM, clean_environ, end, open_sproxy, run_sproxy

PROFILE = """\
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[limits]
drain = {drain}
[[routes]]
match = "192.0.2.0/24"
upstream = "reject"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return clean_environ(tmp_path)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return write_profile(tmp_path / "dev.toml")


def write_profile(path: Path, drain: float = 30) -> Path:
    path.write_text(PROFILE.format(drain=drain))
    return path


def split(address: object) -> tuple[str, int]:
    host, _, port = str(address).rpartition(":")
    return host, int(port)


@asynccontextmanager
async def open_greeter() -> AsyncGenerator[int]:
    """Serve a page, and after ``/hold`` nothing: yields the port."""

    async def greet(stream: trio.SocketStream) -> None:
        head = await stream.receive_some()
        if b"/hold" not in head:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        else:
            with suppress(trio.BrokenResourceError):
                await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(partial(trio.serve_listeners, greet, listeners))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def fetch(proxy: object, port: int) -> str:
    done = await trio.run_process(
        ["curl", "-sS", "--max-time", "10", "-x", f"socks5h://{proxy}", f"http://127.0.0.1:{port}/"],
        capture_stdout=True,
    )
    return done.stdout.decode()


async def get(address: object, path: str) -> tuple[int, str]:
    url = f"http://{address}{path}"
    command = ["curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}", url]
    body, _, status = (await trio.run_process(command, capture_stdout=True)).stdout.decode().rpartition("\n")
    return int(status), body


async def hold(proxy: object, port: int) -> trio.SocketStream:
    """Return a connection through *proxy* that stays open until somebody ends it."""
    stream = await trio.open_tcp_stream(*split(proxy))
    await stream.send_all(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: h\r\n\r\n" % port)
    assert b" 200 " in await stream.receive_some()
    await stream.send_all(b"GET /hold HTTP/1.1\r\n\r\n")
    return stream


async def test_it_serves_is_watched_and_drains(profile: Path, environ: dict[str, str]) -> None:
    async with open_greeter() as port, open_sproxy(str(profile), environ=environ) as sproxy:
        ready = await sproxy.wait_for("ready")
        assert await fetch(ready["listen"], port) == "hello"
        line = await sproxy.wait_for("connection", outcome="ok")
        assert (line["target"], line["upstream"], line["level"]) == (f"127.0.0.1:{port}", "direct", "info")

        admin = ready["admin"]
        assert await get(admin, "/healthz") == (200, "ok\n")
        assert await get(admin, "/readyz") == (200, "ready\n")
        assert "sproxy_ready 1.0" in (await get(admin, "/metrics"))[1]
        assert f"PROXY {ready['listen']}" in (await get(admin, "/proxy.pac"))[1]

        sproxy.send_signal(signal.SIGUSR1)
        machine = json.loads((await run_sproxy("status", "--json", environ=environ)).stdout)
        assert (machine["connections"]["total"], machine["pid"]) == (1, sproxy.process.pid)

        drained = await run_sproxy("drain", str(profile), environ=environ)
        assert (drained.returncode, drained.stderr) == (0, "")
        assert await sproxy.wait() == 0
        await sproxy.wait_for("stopped")

    assert any("serve_front_door" in line for line in sproxy.plain), "the tasks that SIGUSR1 asked for"
    gone = await run_sproxy("status", str(profile), environ=environ)
    assert (gone.returncode, gone.stdout) == (69, "")
    assert gone.stderr.startswith("sproxy: no sproxy answers on ")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_signal_lets_clients_finish(
    profile: Path, environ: dict[str, str], signum: signal.Signals, code: int
) -> None:
    async with open_greeter() as port, open_sproxy(str(profile), environ=environ) as sproxy:
        ready = await sproxy.wait_for("ready")
        async with await hold(ready["listen"], port) as client:
            sproxy.send_signal(signum)
            await sproxy.wait_for("draining")
            status, body = await get(ready["admin"], "/readyz")
            assert (status, body) == (503, "not ready\ndev: draining\n")
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream(*split(ready["listen"]))
            await client.send_all(b"goodbye")
            assert await client.receive_some() == b""

        assert await sproxy.wait() == code


async def test_a_second_signal_waits_for_nobody(profile: Path, environ: dict[str, str]) -> None:
    async with open_greeter() as port, open_sproxy(str(profile), environ=environ) as sproxy:
        ready = await sproxy.wait_for("ready")
        async with await hold(ready["listen"], port):
            sproxy.send_signal(signal.SIGTERM)
            await sproxy.wait_for("draining")
            sproxy.send_signal(signal.SIGTERM)

            assert await sproxy.wait() == 0


async def test_the_drain_has_its_limit(tmp_path: Path, environ: dict[str, str]) -> None:
    profile = write_profile(tmp_path / "dev.toml", drain=0.2)
    async with open_greeter() as port, open_sproxy(str(profile), environ=environ) as sproxy:
        ready = await sproxy.wait_for("ready")
        async with await hold(ready["listen"], port):
            sproxy.send_signal(signal.SIGTERM)

            assert await sproxy.wait() == 0
        assert (await sproxy.wait_for("connection"))["outcome"] == "drained"


async def test_two_of_one_name_do_not_run(profile: Path, environ: dict[str, str]) -> None:
    async with open_sproxy(str(profile), environ=environ) as sproxy:
        await sproxy.wait_for("ready")

        second = await run_sproxy("run", str(profile), environ=environ)
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1] == (
            f'sproxy: "dev" runs already: {profile} (process {sproxy.process.pid}); '
            "end it, or give this one another --name"
        )


async def test_a_process_that_was_killed_leaves_nothing_in_the_way(
    profile: Path, environ: dict[str, str]
) -> None:
    async with open_sproxy(str(profile), environ=environ) as sproxy:
        await sproxy.wait_for("ready")
        sproxy.send_signal(signal.SIGKILL)
        await sproxy.wait()
        assert control_path("dev", environ).is_socket(), "its socket is still there"

        async with open_sproxy(str(profile), environ=environ) as again:
            await again.wait_for("ready")


async def test_an_address_that_is_taken_is_one_line(tmp_path: Path, environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        profile = tmp_path / "dev.toml"
        profile.write_text(f'listen = "127.0.0.1:{port}"\n')

        done = await run_sproxy("run", str(profile), "--log-level", "error", environ=environ)

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"sproxy: cannot listen on 127.0.0.1:{port}: ")


async def test_flags_win_over_variables_and_those_over_the_profile(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    profile = tmp_path / "dev.toml"
    profile.write_text('listen = "192.0.2.1:1"\n[limits]\ndrain = 1\n')
    environ.update(SPROXY_LISTEN="192.0.2.2:2", SPROXY_LIMITS_DRAIN="2.5")

    async with open_sproxy("--config", str(profile), "--listen", "127.0.0.1:0", environ=environ) as sproxy:
        assert split((await sproxy.wait_for("ready"))["listen"])[0] == "127.0.0.1"
        sproxy.send_signal(signal.SIGTERM)
        assert (await sproxy.wait_for("draining"))["limit"] == 2.5


async def listen_address(process: trio.Process, environ: dict[str, str]) -> str:
    """Ask the running sproxy where it listens until it does: this one's log says nothing."""
    while process.poll() is None:
        with suppress(ControlError):
            status = json.loads(await ask(control_path("dev", environ), "GET", "/status"))
            if status["listen"]:
                return status["listen"][0]
        await trio.sleep(0.05)
    raise AssertionError(f"sproxy ended with {process.returncode}")


@attrs.frozen
class BadStderr:
    """A descriptor to log to, and the shell's way of closing it instead."""

    descriptor: int
    shell: str = 'exec "$0" "$@"'


@contextmanager
def open_full_disk() -> Generator[BadStderr]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield BadStderr(descriptor)
    os.close(descriptor)


@contextmanager
def open_abandoned_pipe() -> Generator[BadStderr]:
    reader, writer = os.pipe()
    os.close(reader)
    yield BadStderr(writer)
    os.close(writer)


@contextmanager
def open_stalled_pipe() -> Generator[BadStderr]:
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    os.write(writer, b"x" * size)
    yield BadStderr(writer)
    os.close(reader)
    os.close(writer)


@contextmanager
def open_nothing() -> Generator[BadStderr]:
    yield BadStderr(2, 'exec "$0" "$@" 2>&-')


@pytest.mark.parametrize(
    "open_stderr",
    [
        pytest.param(open_full_disk, marks=pytest.mark.slow),
        pytest.param(open_abandoned_pipe, marks=pytest.mark.slow),
        open_stalled_pipe,
        open_nothing,
    ],
)
async def test_a_log_that_cannot_be_written_stops_nothing(
    profile: Path, environ: dict[str, str], open_stderr: Callable[[], AbstractContextManager[BadStderr]]
) -> None:
    with open_stderr() as stderr, trio.fail_after(PATIENCE):
        command = ["sh", "-c", stderr.shell, PROGRAM, "run", str(profile), "--log-level", "debug"]
        process = await trio.lowlevel.open_process(command, stderr=stderr.descriptor, env=environ)
        try:
            async with open_greeter() as port:
                address = await listen_address(process, environ)
                for _ in range(5):
                    assert await fetch(address, port) == "hello"
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
        finally:
            await end(process)

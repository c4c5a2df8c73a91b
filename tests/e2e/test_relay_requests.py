"""Urgent requests outlive the process that made them, and a full disk is told."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.relay_command import ROOT, Command
from tests.support.relay_tunnel import World, open_world
from tests.support.sproxy import clean_environ
from tests.support.tunnels import eventually

LIMIT = 120.0
NUMBER = 1000
EACH_ONCE = sorted(b"%d" % number for number in range(NUMBER))


async def start(nursery: trio.Nursery, command: Command, environ: Mapping[str, str]) -> trio.Process:
    """Start a client with so many requests; they are queued when this returns."""
    token = command.options[-1]
    argv = [
        sys.executable,
        "-m",
        "tests.support.many_requests",
        f"ws://{command.address}",
        token,
        str(NUMBER),
    ]

    pipe = subprocess.PIPE
    run = partial(trio.run_process, argv, stdout=pipe, check=False, env=environ, cwd=ROOT)
    process: trio.Process = await nursery.start(run)
    assert process.stdout is not None
    assert await process.stdout.receive_some() == b"queued\n"
    return process


@pytest.mark.parametrize("sent", [0, 300])
async def test_a_thousand_queued_requests_survive_kill_9_and_are_each_done_once(
    tmp_path: Path, sent: int
) -> None:
    """The client is killed before any was sent, and while they are; the target's record has each exactly once."""
    environ = {**clean_environ(tmp_path), "PYTHONPATH": str(ROOT)}
    with trio.fail_after(LIMIT):
        async with open_world(tmp_path / "record") as world:
            cable = await world.lay()
            command = Command(tmp_path, cable.address)
            if not sent:
                cable.cut()
            async with trio.open_nursery() as nursery:
                process = await start(nursery, command, environ)
                await eventually(lambda: len(world.target.heard) >= sent)
                process.kill()
                await process.wait()
            assert sent <= len(world.target.heard) < NUMBER
            if not sent:
                await world.lay(cable.port)
            done = await command.run("relay-request", "--flush", "--timeout", "100", environ=environ)
            assert (done.returncode, done.stderr) == (0, b"")
            assert sorted(world.target.heard) == EACH_ONCE
            with sqlite3.connect(tmp_path / "record") as record:
                [found] = record.execute("SELECT count(DISTINCT id) FROM done WHERE status = 0")
            record.close()
            assert found == (NUMBER,)
            await check_flushed(world, command, environ)


async def check_flushed(world: World, command: Command, environ: Mapping[str, str]) -> None:
    """Nothing is left, and nothing is done again."""
    done = await command.run("relay-request", "--flush", environ=environ)
    assert (done.returncode, done.stdout) == (0, b"")
    assert len(world.target.heard) == NUMBER


async def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    environ, small = clean_environ(tmp_path), tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=128k none {small}"
    tried = await trio.run_process(["unshare", "-m", "sh", "-c", mount], capture_stderr=True, check=False)
    if tried.returncode:
        pytest.skip("nothing can be mounted here")
    with trio.fail_after(LIMIT):
        async with open_world(tmp_path / "record") as world:
            command = Command(tmp_path, world.address)
            script = f'{mount} && exec "$@"'
            argv = [
                "unshare",
                "-m",
                "sh",
                "-c",
                script,
                "sh",
                str(command.program),
                "relay-request",
                "target",
            ]
            done = await trio.run_process(
                [*argv, "--priority", "high", *command.options],
                stdin=bytes(300_000),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env={**environ, "XDG_STATE_HOME": str(small)},
            )
            assert (done.returncode, done.stdout) == (1, b"")
            assert done.stderr.startswith(f"sproxy: {small}/session-proxy/requests/relay-".encode())
            assert done.stderr.endswith(b".db: database or disk is full\n")
            assert done.stderr.count(b"\n") == 1
            assert world.target.heard == []

"""A service of an agent on the standard streams of a process; `tests/peers/test_relay_openssh.py` has it with ssh."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.relay_command import Command
from tests.support.relay_tunnel import open_world
from tests.support.tunnels import eventually

LIMIT = 60.0


async def test_bytes_go_through_until_both_have_ended(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    with trio.fail_after(LIMIT):
        async with open_world() as world:
            command = Command(tmp_path, world.address)
            done = await command.run("relay-ssh", "--service", "target", "me@nas", stdin=data)
            assert (done.returncode, done.stdout, done.stderr) == (0, data.upper(), b"")
            assert world.target.heard == [data]
            await eventually(lambda: world.agent.offering.sessions == 0)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--service", "cellar", "nas"], 69, "the agent's service 'cellar': no service 'cellar' is offered"),
        (["pi"], 69, "upstream relay: no agent 'pi' is connected; there is 'nas'"),
        (["--endpoint", "http://a", "nas"], 78, "--endpoint: http:// is no WebSocket's"),
        (["a b"], 2, "the name 'a b' cannot be used"),
    ],
)
async def test_an_error_is_one_line(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    with trio.fail_after(LIMIT):
        async with open_world() as world:
            done = await Command(tmp_path, world.address).run("relay-ssh", *arguments)
    assert (done.returncode, done.stdout) == (code, b""), done.stderr
    assert said in done.stderr.decode()
    if code != 2:
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGHUP, 0), (signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_signal_ends_it_and_the_agent_hears_of_it(tmp_path: Path, signum: int, code: int) -> None:
    with trio.fail_after(LIMIT):
        async with open_world() as world:
            process = await start(Command(tmp_path, world.address))
            assert world.agent.offering.streams == 1
            process.send_signal(signum)
            assert await process.wait() == code
            await eventually(lambda: world.agent.offering.sessions == 0)


async def test_where_the_agent_ends_it_that_is_told(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with open_world() as world:
            process = await start(Command(tmp_path, world.address))
            await world.agent.part("the agent is being shut down")
            assert process.stderr is not None
            said = b"".join([bytes(chunk) async for chunk in process.stderr])
            assert said == b"sproxy: the connection is lost: the agent is being shut down\n"
            assert await process.wait() == 69


async def test_who_has_to_log_in_again_hears_so_while_it_goes_on(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with open_world() as world:
            process = await start(Command(tmp_path, world.address, seconds=20))
            assert process.stderr is not None
            said = await process.stderr.receive_some()
            assert said == (
                b"sproxy: upstream relay: a new token is needed: "
                b"the token expires soon, and there is no newer one\n"
            )
            process.terminate()
            assert await process.wait() == 0


async def start(command: Command) -> trio.Process:
    """Start one to the echo, which works when this returns."""
    pipe = subprocess.PIPE
    argv = [str(command.program), "relay-ssh", "--service", "echo", "nas", *command.options]
    open_process = partial(trio.lowlevel.open_process, argv, stdin=pipe, stdout=pipe, stderr=pipe)
    process = await open_process()
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.send_all(b"hello")
    assert await process.stdout.receive_some() == b"hello"
    return process

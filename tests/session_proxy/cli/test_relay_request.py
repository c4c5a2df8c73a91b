"""The command line of ``sproxy relay-request``, run as a process and not."""

from __future__ import annotations

import json
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner

from session_proxy.cli.main import app
from session_proxy.cli.relay_request import exit_code, report
from session_proxy.errors import ExitCode, UnreadableFileError
from session_proxy.supervision.relay_request import KEPT
from tests.support.relay_command import Command
from tests.support.relay_tokens import make_token
from tests.support.relay_tunnel import open_world
from tests.support.sproxy import clean_environ
from tests.support.tunnels import eventually
from tunnel_relay.background import open_background
from tunnel_relay.protocol.requests import Request, Response, Status

LIMIT = 60.0

Wait = Callable[[], Awaitable[object]]


async def test_the_payload_comes_from_anywhere_and_the_response_goes_to_stdout(tmp_path: Path) -> None:
    environ = clean_environ(tmp_path)
    (tmp_path / "payload").write_bytes(b"from a file")
    with trio.fail_after(LIMIT):
        async with open_world(tmp_path / "record") as world:
            command = Command(tmp_path, world.address)
            for arguments, stdin, said in (
                ([], b"from \xff stdin", b"FROM \xff STDIN"),
                (["--data", "as text"], b"", b"AS TEXT"),
                (["--file", str(tmp_path / "payload"), "--priority", "high"], b"", b"FROM A FILE"),
            ):
                done = await command.run("relay-request", "target", *arguments, stdin=stdin, environ=environ)
                assert (done.returncode, done.stdout, done.stderr) == (0, said, b"")


async def test_one_id_is_done_once(tmp_path: Path) -> None:
    environ = clean_environ(tmp_path)
    with trio.fail_after(LIMIT):
        async with open_world(tmp_path / "record") as world:
            command = Command(tmp_path, world.address)
            for _ in range(2):
                arguments = ["--id", "order-7", "--data", "hello", "--json", "--agent", "nas"]
                done = await command.run("relay-request", "target", *arguments, environ=environ)
                answer = json.loads(done.stdout)
                assert answer.pop("seconds") > 0
                assert answer == {
                    "id": "order-7",
                    "target": "target",
                    "status": "done",
                    "detail": "",
                    "size": 5,
                    "encoding": "utf-8",
                    "payload": "HELLO",
                }
            assert world.target.heard == [b"hello"]
            done = await command.run("relay-request", "cellar", "--data", "", "--id", "x", environ=environ)
            assert (done.returncode, done.stdout) == (69, b"")
            assert (
                done.stderr
                == b"sproxy: request x to cellar: no-such-target: no service 'cellar' is offered\n"
            )
            done = await command.run(
                "relay-request",
                "target",
                "--data",
                "too long",
                "--id",
                "y",
                "--max-size",
                "3",
                environ=environ,
            )
            assert (done.returncode, done.stdout) == (1, b"TOO")
            assert b"too-long: the target said more than 3 bytes" in done.stderr


async def interrupt(command: Command, environ: dict[str, str], *arguments: str, once: Wait) -> str:
    """Run a request until *once* returns, press Ctrl-C, and return what it says then."""
    log = command.folder / "stderr"
    with log.open("wb") as stderr:
        argv = [str(command.program), "relay-request", "target", "--data", "x", *arguments, *command.options]
        async with trio.open_nursery() as nursery:
            run = partial(trio.run_process, argv, stderr=stderr, check=False, env=environ)
            process: trio.Process = await nursery.start(run)
            await once()
            process.send_signal(signal.SIGINT)
        assert process.returncode == ExitCode.INTERRUPTED
    return log.read_text()


async def test_who_does_not_wait_is_told_how_to_ask_again(tmp_path: Path) -> None:
    environ = clean_environ(tmp_path)
    with trio.fail_after(LIMIT):
        async with open_world(tmp_path / "record") as world:
            world.target.held = trio.Event()
            command = Command(tmp_path, world.address)
            arguments = ["--id", "order-7"]

            async def heard() -> None:
                await eventually(lambda: len(world.target.heard) == 1)

            assert await interrupt(command, environ, *arguments, once=heard) == (
                "sproxy: request order-7: interrupted; it may have been done; ask again with --id order-7\n"
            )
            world.target.held.set()
            done = await command.run("relay-request", "target", "--data", "x", *arguments, environ=environ)
            assert (done.stdout, done.stderr) == (b"X", b"")
            assert world.target.heard == [b"x"]


@pytest.mark.parametrize(
    ("priority", "outlook"),
    [("normal", "ask again with --id order-7"), ("high", KEPT)],
)
async def test_what_was_not_sent_is_said_not_to_be(tmp_path: Path, priority: str, outlook: str) -> None:
    environ = clean_environ(tmp_path)
    dialed = trio.Event()

    async def mute(stream: trio.SocketStream) -> None:
        dialed.set()
        await stream.receive_some()
        await trio.sleep_forever()

    with trio.fail_after(LIMIT):
        async with open_background() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, mute, 0, host="127.0.0.1"))
            command = Command(tmp_path, f"127.0.0.1:{listener.socket.getsockname()[1]}")
            arguments = ["--id", "order-7", "--priority", priority]
            assert await interrupt(command, environ, *arguments, once=dialed.wait) == (
                f"sproxy: request order-7: interrupted before it was sent; {outlook}\n"
            )


async def test_what_is_left_is_flushed(tmp_path: Path) -> None:
    environ = clean_environ(tmp_path)
    with trio.fail_after(LIMIT):
        async with open_world(tmp_path / "record") as world:
            cable = await world.lay()
            command = Command(tmp_path, cable.address)
            cable.cut()
            arguments = ["--data", "hello", "--id", "left", "--priority", "high", "--timeout", "3"]
            done = await command.run("relay-request", "target", *arguments, environ=environ)
            assert (done.returncode, done.stdout) == (69, b"")
            assert done.stderr.count(b"\n") == 1
            assert b'it is kept, and made by the next "sproxy relay-request" or with --flush' in done.stderr
            await world.lay(cable.port)
            done = await command.run("relay-request", "--flush", environ=environ)
            assert (done.returncode, done.stdout) == (0, b"request left to target: done\n")
            done = await command.run("relay-request", "--flush", "--json", environ=environ)
            assert (done.returncode, json.loads(done.stdout)) == (0, {"answered": [], "unknown": []})
            assert world.target.heard == [b"hello"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say where the payload goes"),
        (["a", "--data", "x", "--file", "y"], "the payload is given twice"),
        (["a", "--flush"], "makes what is left"),
        (["127.0.0.1:80", "--data", "x"], "is no service of the agent; HOST:PORT is for mode"),
        (["a", "--data", "x", "--id", "a b"], "the id of a request is"),
        (["a", "--data", "x", "--agent", "a b"], "the name 'a b' cannot be used"),
        (["a", "--data", "x", "--timeout", "0"], "--timeout"),
        (["a", "--data", "x", "--max-size", "99999999"], "--max-size"),
    ],
)
def test_a_wrong_command_line_is_told(tmp_path: Path, arguments: list[str], said: str) -> None:
    token = tmp_path / "token"
    token.write_text(make_token("alice"))
    options = ["--endpoint", "wss://a.example.com", "--token-file", str(token)]
    done = CliRunner().invoke(app, ["relay-request", *options, *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def test_a_payload_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(make_token("alice"))
    options = [
        "--endpoint",
        "wss://a.example.com",
        "--token-file",
        str(token),
        "--file",
        str(tmp_path / "no"),
    ]
    done = CliRunner().invoke(app, ["relay-request", "target", *options])
    assert isinstance(done.exception, UnreadableFileError)
    assert str(done.exception) == f"{tmp_path}/no: cannot be read: no such file or directory; check the path"


def test_every_status_has_an_exit_code() -> None:
    assert {exit_code(status) for status in Status} == {
        ExitCode.OK,
        ExitCode.FAILURE,
        ExitCode.UNREACHABLE,
        ExitCode.NOT_PERMITTED,
    }
    assert exit_code(Status.DONE) is ExitCode.OK


def test_what_is_no_text_is_told_in_base64() -> None:
    request = Request(id="a", target="b", payload=b"")
    said = report(request, Response(id="a", status=Status.DONE, payload=b"\xff"))
    assert (said["encoding"], said["payload"], said["size"]) == ("base64", "/w==", 1)

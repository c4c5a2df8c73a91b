"""Which running ``sproxy`` is asked, and what if it is not one."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from session_proxy.cli.asking import ask_running, find_running, structure
from session_proxy.errors import ControlError, SeveralRunningError
from session_proxy.observability.http import Handler, HttpAnswer, HttpRequest, serve_http
from session_proxy.supervision.control_socket import open_control_socket
from session_proxy.supervision.places import control_path
from session_proxy.supervision.status import TrafficStatus
from tunnel_relay.background import open_background


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}


@asynccontextmanager
async def open_service(environ: dict[str, str], body: bytes, name: str = "a") -> AsyncGenerator[None]:
    async def status(_request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, body)

    routes: dict[tuple[str, str], Handler] = {("GET", "/status"): status}
    with open_control_socket(control_path(name, environ)) as listener:
        async with open_background() as background:
            await background.start(serve_http, routes, [listener])
            yield


def absolute(file: str | None) -> str | None:
    return None if file is None else str(Path(file).absolute())


async def find(
    environ: dict[str, str], *running: str, profile: Path | str | None = None, name: str | None = None
) -> str:
    """Return the name of the one that is asked; *running* are files, each under the name of its stem."""
    return await find_among(
        environ, {Path(file).stem: file for file in running}, None if profile is None else Path(profile), name
    )


async def find_among(
    environ: dict[str, str], running: Mapping[str, str | None], profile: Path | None, name: str | None = None
) -> str:
    async with AsyncExitStack() as stack:
        for each, file in running.items():
            body = json.dumps({"profile": absolute(file), "pid": 7}).encode()
            await stack.enter_async_context(open_service(environ, body, each))
        return (await find_running(profile, name, environ, command="drain")).stem


@pytest.mark.parametrize(
    ("profile", "name", "found"),
    [(None, None, "a"), ("there/a.toml", None, "a"), ("b.toml", "c", "c"), (None, "d", "d")],
)
async def test_it_is_found_by_name_or_profile_or_for_being_the_only_one(
    environ: dict[str, str], profile: str | None, name: str | None, found: str
) -> None:
    assert await find(environ, "there/a.toml", profile=profile, name=name) == found


async def test_of_several_it_is_that_of_the_default_profile(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")

    assert await find(environ, "a.toml", "config.toml") == "config"
    for other in ("b.toml", "elsewhere/config.toml"):
        with pytest.raises(SeveralRunningError) as refusal:
            await find(environ, "a.toml", other)
        assert refusal.value.exit_code == 2
        assert str(refusal.value) == (
            f"several are running: a, {Path(other).stem}; say which: sproxy drain --name a, or name the file"
        )


@pytest.mark.parametrize("exists", [True, False])
async def test_another_file_of_the_same_name_is_left_alone(
    environ: dict[str, str], tmp_path: Path, exists: bool
) -> None:
    if exists:
        for folder in ("vpn", "vpn2"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "client.toml").write_text("")

    with pytest.raises(ControlError) as refusal:
        await find(environ, "vpn/client.toml", profile="vpn2/client.toml")
    assert str(refusal.value) == (
        f'vpn2/client.toml does not run; "client" is {tmp_path}/vpn/client.toml (process 7): '
        "say --name client if you mean it"
    )
    assert await find(environ, "vpn/client.toml", profile="vpn2/client.toml", name="client") == "client"


async def test_one_without_a_file_is_found_by_its_name_only(environ: dict[str, str]) -> None:
    with pytest.raises(
        ControlError, match=r'i-1\.toml does not run; "i-1" has no file \(process 7\): say --name'
    ):
        await find_among(environ, {"i-1": None}, Path("i-1.toml"))


async def test_a_file_is_the_same_by_another_path(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text("")
    (tmp_path / "link.toml").symlink_to(file)

    assert await find_among(environ, {"link": "link.toml"}, file) == "link"
    assert await find(environ, "link.toml", profile="sub/../link.toml") == "link"
    assert await find(environ, str(file), profile="./client.toml") == "client"


async def test_a_file_is_found_under_the_name_that_it_was_given(environ: dict[str, str]) -> None:
    running = {"client": "lab/client.toml", "mine": "client.toml", "third": None}

    assert await find_among(environ, running, Path("client.toml")) == "mine"
    assert await find_among(environ, running, Path("lab/client.toml")) == "client"
    says = r"^several run client\.toml: mine, twice; say which: sproxy drain --name mine$"
    with pytest.raises(SeveralRunningError, match=says):
        await find_among(environ, {**running, "twice": "client.toml"}, Path("client.toml"))
    with pytest.raises(ControlError, match=r"no sproxy answers on .*/a\.sock"):
        await find_among(environ, running, Path("a.toml"))


async def test_what_was_killed_does_not_count(environ: dict[str, str]) -> None:
    path = control_path("dead", environ)
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))

    assert await find(environ, "a.toml") == "a"
    with pytest.raises(ControlError, match="no sproxy is running"):
        await find(environ)


async def test_what_answers_nothing_of_use_runs_no_file(environ: dict[str, str]) -> None:
    async with open_service(environ, b"hello", "b"):
        assert await find_among(environ, {"c": "a.toml"}, Path("a.toml")) == "c"


async def test_the_answer_is_an_object(environ: dict[str, str]) -> None:
    async with open_service(environ, b'{"a": 1}'):
        assert await trio.to_thread.run_sync(ask_running, None, "a", "GET", "/status") == {"a": 1}


@pytest.mark.parametrize("body", [b"[]", b"hello", b"\xff"])
async def test_another_program_is_told_apart(environ: dict[str, str], body: bytes) -> None:
    async with open_service(environ, body):
        with pytest.raises(ControlError, match="is no sproxy"):
            await trio.to_thread.run_sync(ask_running, None, "a", "GET", "/status")


def test_a_stopped_process_is_not_waited_for(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("session_proxy.cli.asking.PATIENCE", 0.01)
    says = r"no answer within 0\.01 s"
    with open_control_socket(control_path("a", environ)), pytest.raises(ControlError, match=says):
        ask_running(None, "a", "GET", "/status")


@pytest.mark.parametrize(
    "answer", [{}, {"open": 1}, None, {"open": "x", "total": 1, "sent": 1, "received": 1}]
)
def test_the_answer_of_another_version_is_said_to_be_that(answer: object) -> None:
    with pytest.raises(ControlError, match="another version"):
        structure(answer, TrafficStatus)


async def test_the_command_that_was_typed_is_the_one_that_is_shown(environ: dict[str, str]) -> None:
    says = "say which: sproxy status --name a, or name the file"
    async with open_service(environ, b"{}", "a"), open_service(environ, b"{}", "b"):
        with pytest.raises(SeveralRunningError, match=says):
            await trio.to_thread.run_sync(ask_running, None, None, "GET", "/status")

"""Which running ``sproxy`` is asked, and what if it is not one."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from session_proxy.cli.asking import ask_running, find_running, structure
from session_proxy.errors import ControlError
from session_proxy.observability.http import Handler, HttpAnswer, HttpRequest, serve_http
from session_proxy.supervision.control_socket import open_control_socket
from session_proxy.supervision.places import control_path
from session_proxy.supervision.status import TrafficStatus


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}


def find(environ: dict[str, str], *running: str, profile: str | None = None, name: str | None = None) -> str:
    with ExitStack() as stack:
        for each in running:
            stack.enter_context(open_control_socket(control_path(each, environ)))
        return find_running(None if profile is None else Path(profile), name, environ).stem


@pytest.mark.parametrize(
    ("profile", "name", "found"),
    [(None, None, "a"), ("there/b.toml", None, "b"), ("b.toml", "c", "c"), (None, "d", "d")],
)
def test_it_is_found_by_name_or_profile_or_for_being_the_only_one(
    environ: dict[str, str], profile: str | None, name: str | None, found: str
) -> None:
    assert find(environ, "a", profile=profile, name=name) == found


def test_of_several_it_is_that_of_the_default_profile(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")

    assert find(environ, "a", "config") == "config"
    with pytest.raises(ControlError, match="several are running: a, b; say which with --name"):
        find(environ, "a", "b")


def test_what_was_killed_does_not_count(environ: dict[str, str]) -> None:
    path = control_path("dead", environ)
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))

    assert find(environ, "a") == "a"
    with pytest.raises(ControlError, match="no sproxy is running"):
        find(environ)


@asynccontextmanager
async def open_service(environ: dict[str, str], body: bytes) -> AsyncGenerator[None]:
    async def status(_request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, body)

    routes: dict[tuple[str, str], Handler] = {("GET", "/status"): status}
    with open_control_socket(control_path("a", environ)) as listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_http, routes, [listener]))
            yield
            nursery.cancel_scope.cancel()


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

"""Asking over the control socket: answers, refusals, and peers that are no sproxy."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from session_proxy.errors import ControlError
from session_proxy.observability.http import Handler, HttpAnswer, HttpRequest, serve_http
from session_proxy.supervision.control_client import ask, ask_object
from session_proxy.supervision.control_socket import open_control_socket


async def status(request: HttpRequest) -> HttpAnswer:
    return HttpAnswer.json({"json": request.accepts_json()})


async def accepted(request: HttpRequest) -> HttpAnswer:
    return HttpAnswer.text(request.headers["accept"])


async def no_object(_request: HttpRequest) -> HttpAnswer:
    return HttpAnswer(200, b"[]")


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/status"): status,
    ("GET", "/list"): no_object,
    ("GET", "/accepted"): accepted,
}


@asynccontextmanager
async def open_server(path: Path) -> AsyncGenerator[None]:
    with open_control_socket(path) as listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_http, ROUTES, [listener]))
            yield
            nursery.cancel_scope.cancel()


async def test_a_running_service_answers(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with open_server(path):
        assert await ask(path, "GET", "/status") == b'{"json": true}\n'
        assert await ask(path, "GET", "/accepted", accept="text/html") == b"text/html\n"


async def test_an_answer_is_an_object_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with open_server(path):
        assert await ask_object(path, "GET", "/status") == {"json": True}
        with pytest.raises(ControlError, match="what listens there is no sproxy"):
            await ask_object(path, "GET", "/list")


async def test_a_refusal_is_an_error_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with open_server(path):
        with pytest.raises(ControlError, match=r"nothing is at /drain.*\(HTTP status 404\)"):
            await ask(path, "POST", "/drain")


async def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"no sproxy answers on .*a\.sock"):
        await ask(tmp_path / "a.sock", "GET", "/status")


@pytest.mark.parametrize(
    "speech", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"]
)
async def test_another_program_is_told_apart(tmp_path: Path, speech: bytes) -> None:
    async def speak(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(speech)

    path = tmp_path / "a.sock"
    with open_control_socket(path) as listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_listeners, speak, [listener]))

            with pytest.raises(ControlError, match=r"a\.sock"):
                await ask(path, "GET", "/status")
            nursery.cancel_scope.cancel()

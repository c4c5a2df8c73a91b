"""Ask a running service, over its control socket."""

from __future__ import annotations

import contextlib
import json
from http import HTTPStatus
from pathlib import Path
from typing import cast

import h11
import trio

from session_proxy.errors import ControlError

# The status of a proxy with thousands of upstreams fits; a program that answers more is not ours.
MAX_ANSWER = 1 << 24

READ_SIZE = 65536


async def ask_object(path: Path, method: str, resource: str) -> dict[str, object]:
    """Return the JSON object that the service at the socket *path* answers to *method* *resource*; see `ask`.

    Raises:
      ControlError: as `ask` does, or the answer is something else.

    """
    body = await ask(path, method, resource)
    with contextlib.suppress(ValueError):
        answer: object = json.loads(body)
        if isinstance(answer, dict):
            return cast("dict[str, object]", answer)
    raise ControlError(f"{path}: what listens there is no sproxy")


async def ask(path: Path, method: str, resource: str, *, accept: str = "application/json") -> bytes:
    """Return what the service at the socket *path* answers to *method* *resource*, best in a form of *accept*.

    Waits as long as the service takes: the caller holds the deadline.

    Raises:
      ControlError: nobody listens there, or the answer is no success.

    """
    try:
        stream = await trio.open_unix_socket(str(path))
    except OSError as exc:
        raise ControlError(f"no sproxy answers on {path} ({exc.strerror or exc})") from exc
    async with stream:
        try:
            status, body = await _exchange(stream, method, resource, accept)
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as exc:
            raise ControlError(f"{path}: what listens there ended the exchange") from exc
    if status != HTTPStatus.OK:
        raise ControlError(f"{path}: {body.decode(errors='replace').strip()} (HTTP status {status})")
    return body


async def _exchange(stream: trio.abc.Stream, method: str, resource: str, accept: str) -> tuple[int, bytes]:
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method=method,
        target=resource,
        headers=[("Host", "localhost"), ("Accept", accept), ("Connection", "close")],
    )
    data = (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    await stream.send_all(data)
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(READ_SIZE)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_ANSWER:
                raise h11.RemoteProtocolError("the answer is too large")
        else:
            return status, bytes(body)

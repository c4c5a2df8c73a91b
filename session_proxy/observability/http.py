"""A small HTTP/1.1 server for operators: bounded in size, time and number, on any Trio listener.

It answers requests that fit in memory with answers that fit in memory, which is all that health checks,
metrics and control need. h11 does the protocol.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus

import attrs
import h11
import trio

# curl sends about 80 bytes of head and a browser 2 KB; h11's own default is 100 KB.
MAX_HEAD = 16384

# No operation takes a body of more than a few words.
MAX_BODY = 65536

# Scrapers and probes are few. More than this is somebody else, and each connection costs a task.
MAX_CONNECTIONS = 64

# A path that is not found is shown up to here.
SHOWN_PATH = 100

# One read takes what a whole request is likely to be.
READ_SIZE = 16384


@attrs.frozen(kw_only=True)
class HttpLimits:
    """Seconds: for a whole request to arrive, for its answer to be made and sent, between requests."""

    request: float = 10.0
    answer: float = 10.0
    idle: float = 60.0


@attrs.frozen(kw_only=True)
class HttpRequest:
    """A request; header names are in lower case, and of repeated headers the last one counts."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    body: bytes = attrs.field(default=b"", repr=False)

    def accepts_json(self) -> bool:
        """Return whether the client asked for JSON by name; ``*/*`` gets text."""
        return "application/json" in self.headers.get("accept", "")


@attrs.frozen
class HttpAnswer:
    """What a request is answered with."""

    status: int
    body: bytes = attrs.field(repr=False)
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def text(cls, text: str, status: int = HTTPStatus.OK) -> HttpAnswer:
        """Answer with lines of text."""
        return cls(status, f"{text}\n".encode())

    @classmethod
    def json(cls, value: Mapping[str, object], status: int = HTTPStatus.OK) -> HttpAnswer:
        """Answer with a JSON object."""
        return cls(status, json.dumps(value).encode() + b"\n", "application/json")


Handler = Callable[[HttpRequest], Awaitable[HttpAnswer]]

# By method and path. HEAD is answered wherever GET is.
HttpRoutes = Mapping[tuple[str, str], Handler]


async def serve_http(
    routes: HttpRoutes,
    listeners: Sequence[trio.SocketListener],
    *,
    limits: HttpLimits = HttpLimits(),
    task_status: trio.TaskStatus[Sequence[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests on *listeners* by *routes* until cancelled; closes the listeners then.

    What a client does wrong ends its connection only. A handler that raises is a bug, and ends the server.
    """
    slots = trio.CapacityLimiter(MAX_CONNECTIONS)
    handler = functools.partial(_serve_bounded, slots, routes, limits)
    await trio.serve_listeners(handler, list(listeners), task_status=task_status)


async def _serve_bounded(
    slots: trio.CapacityLimiter, routes: HttpRoutes, limits: HttpLimits, stream: trio.abc.Stream
) -> None:
    try:
        slots.acquire_on_behalf_of_nowait(stream)
    except trio.WouldBlock:
        return
    try:
        await serve_http_stream(routes, stream, limits=limits)
    finally:
        slots.release_on_behalf_of(stream)


async def serve_http_stream(
    routes: HttpRoutes, stream: trio.abc.Stream, *, limits: HttpLimits = HttpLimits(), once: bool = False
) -> None:
    """Answer the requests of one client until it leaves, errs or is too slow. Does not close *stream*.

    With *once*, there is one request, and the client is told so.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    try:
        while True:
            await _serve_one(connection, routes, stream, limits, once=once)
            if not _is_reusable(connection):
                return
            connection.start_next_cycle()
    except (trio.TooSlowError, trio.BrokenResourceError):
        return


def _is_reusable(connection: h11.Connection) -> bool:
    return connection.our_state is h11.DONE and connection.their_state is h11.DONE


async def _serve_one(
    connection: h11.Connection,
    routes: HttpRoutes,
    stream: trio.abc.Stream,
    limits: HttpLimits,
    *,
    once: bool,
) -> None:
    try:
        request = await _receive_request(connection, stream, limits)
    except h11.RemoteProtocolError as exc:
        answer = HttpAnswer.text(str(exc), exc.error_status_hint)
        request = None
    else:
        if request is None:
            return
        with trio.fail_after(limits.answer):
            answer = await _answer(routes, request)
    if connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    head_only = request is not None and request.method == "HEAD"
    with trio.fail_after(limits.answer):
        await stream.send_all(_encode(connection, answer, head_only=head_only, once=once))


async def _receive_request(
    connection: h11.Connection, stream: trio.abc.Stream, limits: HttpLimits
) -> HttpRequest | None:
    """Return the next request, or `None` where the client left between requests.

    Raises:
      h11.RemoteProtocolError: it is no HTTP, or too large.

    """
    if not connection.trailing_data[0]:
        with trio.fail_after(limits.idle):
            connection.receive_data(bytes(await stream.receive_some(READ_SIZE)))
    head: h11.Request | None = None
    body = bytearray()
    with trio.fail_after(limits.request):
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    await stream.send_all(_encode_continue(connection))
                connection.receive_data(bytes(await stream.receive_some(READ_SIZE)))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    raise h11.RemoteProtocolError(
                        "the body is too large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                    )
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _to_request(head, bytes(body))
            else:  # ConnectionClosed, or PAUSED after an upgrade that nobody offered
                return None


def _to_request(head: h11.Request, body: bytes) -> HttpRequest:
    target = head.target.decode("ascii", "replace")
    path, _, query = target.partition("?")
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    return HttpRequest(method=head.method.decode("ascii"), path=path, query=query, headers=headers, body=body)


async def _answer(routes: HttpRoutes, request: HttpRequest) -> HttpAnswer:
    method = "GET" if request.method == "HEAD" else request.method
    handler = routes.get((method, request.path))
    if handler is not None:
        return await handler(request)
    allowed = sorted(known for known, path in routes if path == request.path)
    if not allowed:
        known = " ".join(sorted({path for _, path in routes}))
        return HttpAnswer.text(
            f"nothing is at {request.path[:SHOWN_PATH]}; there is {known}", HTTPStatus.NOT_FOUND
        )
    text = f"{request.path} takes {', '.join(allowed)}"
    answer = HttpAnswer.text(text, HTTPStatus.METHOD_NOT_ALLOWED)
    return attrs.evolve(answer, headers=(("Allow", ", ".join(allowed)),))


def _encode_continue(connection: h11.Connection) -> bytes:
    return connection.send(h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[])) or b""


def _encode(connection: h11.Connection, answer: HttpAnswer, *, head_only: bool, once: bool) -> bytes:
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Cache-Control", "no-store"),
        ("Date", formatdate(usegmt=True)),
        *answer.headers,
    ]
    if once or connection.their_state is h11.ERROR:
        headers.append(("Connection", "close"))
    reason = HTTPStatus(answer.status).phrase
    data = connection.send(h11.Response(status_code=answer.status, headers=headers, reason=reason)) or b""
    if not head_only:
        data += connection.send(h11.Data(data=answer.body)) or b""
    return data + (connection.send(h11.EndOfMessage()) or b"")

"""The heads of HTTP requests on the relay's public port, and answers to those that are turned away."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

import attrs
import h11
import trio

# A token may have 8 KiB, and balancers add headers of their own.
MAX_HEAD = 16384

# One read takes what a whole head is likely to be.
_READ = 16384


class HeadError(Exception):
    """What came is no HTTP request, or too long a one: the HTTP *status*, and why."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        super().__init__(detail)


@attrs.frozen(kw_only=True)
class Head:
    """The head of a request; header names are in lower case, and values of repeated headers joined by commas."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)

    def asks_for_websocket(self) -> bool:
        """Return whether it is an upgrade request (RFC 6455, section 4.2.1)."""
        options = {word.strip().lower() for word in self.headers.get("connection", "").split(",")}
        return self.headers.get("upgrade", "").lower() == "websocket" and "upgrade" in options

    def subprotocols(self) -> list[str]:
        """Return the subprotocols that are offered."""
        return [word.strip() for word in self.headers.get("sec-websocket-protocol", "").split(",")]


async def read_head(stream: trio.abc.ReceiveStream) -> tuple[Head, bytes]:
    """Return the head of the request that comes on *stream*, and all bytes that were read.

    The caller holds the time limit.

    Raises:
      HeadError: it is none; of status 0 where the client has left without a word.

    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    read = b""
    while True:
        data = bytes(await stream.receive_some(_READ))
        read += data
        try:
            connection.receive_data(data)
            event = connection.next_event()
        except h11.RemoteProtocolError as exc:
            raise HeadError(exc.error_status_hint if read else 0, str(exc)) from exc
        if isinstance(event, h11.Request):
            # Whoever reads it behind us makes of other characters what it will.
            if not all(value.isascii() for _, value in event.headers):
                raise HeadError(HTTPStatus.BAD_REQUEST, "the head holds what is not ASCII")
            return _head_of(event), read
        if event is not h11.NEED_DATA:
            raise HeadError(0 if not read else HTTPStatus.BAD_REQUEST, "the client left")


def _head_of(request: h11.Request) -> Head:
    path, _, query = request.target.decode("ascii", "replace").partition("?")
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Head(method=request.method.decode("ascii"), path=path, query=query, headers=headers)


def turn_away(status: int, detail: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the answer to a request that is turned away; nothing follows it on its connection."""
    body = f"{detail}\n".encode()
    fields = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Date": formatdate(usegmt=True),
        "Connection": "close",
        **(headers or {}),
    }
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1") + body

"""A small HTTP/1.1 server connection: h11 on a Trio stream, for the lab's targets and its AWS endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs
import h11
import trio

# One read: large enough that hashing an upload, not Python, sets its pace.
READ_SIZE = 256 * 1024
# What a control call's body may take: AWS allows far less.
MAX_BODY = 1024 * 1024

Headers = Sequence[tuple[str, str]]


class LabHttpError(Exception):
    """The peer broke HTTP, or left; the connection is of no more use."""


class BodyTooLargeError(LabHttpError):
    """A body is larger than `MAX_BODY`."""


@attrs.frozen
class Request:
    """The head of one request; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str] = attrs.field(repr=False)

    @property
    def upgrades_to_websocket(self) -> bool:
        """Whether the client asks for RFC 6455 instead of an answer."""
        return self.headers.get("upgrade", "").lower() == "websocket"


class HttpConnection:
    """The server's side of one connection; requests come one after another (keep-alive)."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.SERVER)
        self._head_only = False

    async def next_request(self) -> Request | None:
        """Return the next request's head, or `None` when the client has gone; raises `LabHttpError`."""
        if self._h11.their_state is h11.DONE and self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        self._head_only = event.method == b"HEAD"
        return Request(event.method.decode("ascii"), event.target.decode("latin-1"), headers)

    async def receive_some(self) -> bytes:
        """Return the next piece of the request's body, b"" after its end; raises `LabHttpError`."""
        event = await self._next_event()
        return event.data if isinstance(event, h11.Data) else b""

    async def read_body(self) -> bytes:
        """Return the whole body of a request that is known to be small; raises `LabHttpError`."""
        whole = bytearray()
        while piece := await self.receive_some():
            whole += piece
            if len(whole) > MAX_BODY:
                raise BodyTooLargeError(f"a body of more than {MAX_BODY} bytes")
        return bytes(whole)

    async def respond(self, status: int, body: bytes = b"", headers: Headers = ()) -> None:
        """Send a whole answer; raises `LabHttpError`."""
        await self.start_response(status, len(body), headers, body if self.wants_body else b"")
        self.finish_response(len(body))

    async def start_response(
        self, status: int, length: int, headers: Headers = (), beginning: bytes = b""
    ) -> None:
        """Send the head of an answer with *length* bytes of body, and the body's *beginning*.

        The rest the caller writes to `stream` itself, unless `wants_body` is false; then it says so with
        `finish_response`. Raises `LabHttpError`.
        """
        framed = [*headers, ("Content-Length", str(length))]
        head = self._h11.send(h11.Response(status_code=status, headers=framed))
        await self._send((head or b"") + beginning)

    def finish_response(self, sent: int) -> None:
        """Note that *sent* bytes of body went out on `stream`, all that the head promised."""
        if sent and self.wants_body:
            # h11 only counts what a passed-through object says its length is (its "sendfile" chapter).
            self._h11.send_with_data_passthrough(h11.Data(data=_Sent(sent)))  # pyright: ignore[reportArgumentType]
        self._h11.send(h11.EndOfMessage())

    @property
    def wants_body(self) -> bool:
        """Whether the answer to this request has a body: that to HEAD has none (RFC 9110, section 9.3.2)."""
        return not self._head_only

    @property
    def can_continue(self) -> bool:
        """Whether another request may follow on this connection."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    async def switch_protocols(self, answer: bytes) -> None:
        """Send *answer*, a whole head with status 101; HTTP is over then. Raises `LabHttpError`."""
        await self._send(answer)

    @property
    def trailing_data(self) -> bytes:
        """What the client sent behind the request's head."""
        return self._h11.trailing_data[0]

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._send(self._h11.send(go_on))
                self._h11.receive_data(bytes(await self.stream.receive_some(READ_SIZE)))
        except (h11.RemoteProtocolError, trio.BrokenResourceError) as exc:
            raise LabHttpError("the client broke HTTP or left") from exc
        return event  # pyright: ignore[reportReturnType]

    async def _send(self, data: bytes | None) -> None:
        try:
            await self.stream.send_all(data or b"")
        except trio.BrokenResourceError as exc:
            raise LabHttpError("the client left") from exc


Handler = Callable[[HttpConnection, Request], Awaitable[None]]


class _Sent:
    """Stands for a body that has gone out already."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


async def serve_connection(handler: Handler, stream: trio.abc.Stream) -> None:
    """Answer the requests on *stream* with *handler*, one after another, until either side ends it.

    A handler that takes the connection over for another protocol returns when that has ended.
    """
    connection = HttpConnection(stream)
    try:
        while (request := await connection.next_request()) is not None:
            await handler(connection, request)
            if request.upgrades_to_websocket:
                return
            while await connection.receive_some():
                pass  # what the handler did not want to read stands before the next request
            if not connection.can_continue:
                return
    except LabHttpError:
        return

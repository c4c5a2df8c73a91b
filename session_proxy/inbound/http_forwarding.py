"""Pass HTTP requests on to their origin servers, and the responses back.

A request's body goes up while the response comes down, so that an origin server can say "100 Continue", or
refuse early. The connection to a server is kept for the next request to it, but only a request that may be
repeated takes it: the server may have closed it a moment ago, and nothing tells.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import attrs
import h11
import trio

from session_proxy.errors import BadAnswerError
from session_proxy.inbound.carrying import carry, close_far
from session_proxy.inbound.front_door import FrontDoor, Visit
from session_proxy.inbound.http_origin import NoAnswerError, Origin, encode_request
from session_proxy.inbound.idleness import Watched
from session_proxy.inbound.relaying import RelayEnd
from session_proxy.outbound.socket_stream import PlainSocketStream
from session_proxy.outbound.transport import EarlyBytes
from session_proxy.protocol.http_connect import Forward, HttpRefusalError, HttpServer
from session_proxy.protocol.http_forward import (
    REPEATABLE,
    answer_here,
    has_body,
    has_two_lengths,
    hops_left,
    interim_for_client,
    request_for_origin,
    response_for_client,
)

READ = 64 * 1024

# Seconds that a server may take to be reached for a client that has ended its side of the connection, although it
# has not said that its request is the last one. Mostly it has left, which looks the same: hence not longer.
HALF_CLOSED = 2.0


@attrs.define(eq=False)
class Exchange(Watched):
    """A request and its response under way."""

    visit: Visit
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    is_idle: bool = False
    failures: list[Exception] = attrs.field(factory=list[Exception])
    switched: bool = False

    def progress(self) -> int:
        """Return how many bytes have moved so far, both ways together."""
        return self.visit.traffic.sent + self.visit.traffic.received

    def expire(self) -> None:
        """End: nothing has moved for too long."""
        self.is_idle = True
        self.scope.cancel()

    async def attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run one direction; what goes wrong ends the other one too, and is raised by neither."""
        try:
            await step()
        except (HttpRefusalError, BadAnswerError, trio.BrokenResourceError) as exc:
            self.failures.append(exc)
            self.scope.cancel()


@attrs.define(eq=False)
class Forwarding:
    """The requests of one client, which may go to different origin servers one after the other."""

    door: FrontDoor
    visit: Visit
    near: PlainSocketStream
    server: HttpServer
    _origin: Origin | None = attrs.field(default=None, init=False)

    async def serve(self, request: Forward) -> bool:
        """Get *request* answered; return whether the client's connection is good for another one.

        Raises:
          DialError: the origin server cannot be reached.
          HttpRefusalError: the request's body is none, or the number of hops that it may go.
          BadAnswerError: the origin server's answer is none.
          trio.BrokenResourceError: the client left.

        """
        if not has_body(request.headers):
            # Its end is there already, and there only once: the request may have to be sent twice.
            self.server.next_event()
        if hops_left(request) == 0:
            return await self._answer_here(request)
        repeatable = request.method in REPEATABLE and not has_body(request.headers)
        kept = self._origin
        if kept is not None and repeatable and kept.target == request.target:
            try:
                return await self._exchange(request, kept)
            except NoAnswerError:
                # It has closed the connection that we kept: that is no answer to this request.
                pass
        await self.aclose()
        grace = math.inf if self.server.may_finish else HALF_CLOSED
        early = (
            EarlyBytes(encode_request(request_for_origin(request)), repeatable=True) if repeatable else None
        )
        stream = await self.door.dial(self.visit, self.near, request.target, early=early, grace=grace)
        self._origin = Origin(request.target, stream, self.visit.traffic)
        if early is not None and early.sent:
            self._origin.has_got(request_for_origin(request))
        return await self._exchange(request, self._origin)

    async def _answer_here(self, request: Forward) -> bool:
        response, body = answer_here(request)
        answer = [self.server.respond(part) for part in (response, h11.Data(body), h11.EndOfMessage())]
        await self.near.send_eagerly(b"".join(answer))
        self.visit.target = request.target
        self.visit.ended(RelayEnd.FINISHED.value)
        return self.server.next_request() and not self.door.draining

    async def aclose(self) -> None:
        """Close the connection to the origin server, if there is one."""
        origin, self._origin = self._origin, None
        if origin is not None:
            await close_far(origin.stream, clean=origin.is_clean)

    async def _exchange(self, request: Forward, origin: Origin) -> bool:
        exchange = Exchange(self.visit)

        async def up() -> None:
            await self._send_request(request, origin)

        async def down() -> None:
            exchange.switched = await self._send_response(request, origin)

        with self.door.relays.watched(exchange), exchange.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exchange.attempt, up)
                await exchange.attempt(down)
                # A response that is complete before its request is one that did not want the rest.
                nursery.cancel_scope.cancel()
        if exchange.failures:
            raise exchange.failures[0]
        if exchange.is_idle:
            self.visit.ended(RelayEnd.IDLE.value)
            return False
        if exchange.switched:
            await self._switch(origin)
            return False
        self.visit.ended(RelayEnd.FINISHED.value)
        if not origin.next_request():
            await self.aclose()
        return self.server.next_request() and not self.door.draining

    async def _send_request(self, request: Forward, origin: Origin) -> None:
        if origin.is_asked:
            return
        try:
            await origin.send(request_for_origin(request))
            if not has_body(request.headers):
                await origin.send(h11.EndOfMessage())
                return
            while True:
                event = self.server.next_event()
                if isinstance(event, h11.Data):
                    await origin.send(h11.Data(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    await origin.send(event)
                    return
                else:
                    self.server.receive_data(await self._read_body())
        except trio.BrokenResourceError:
            # The server wants no more of it. It may have said why: the other direction finds out.
            return

    async def _read_body(self) -> bytes:
        try:
            return await self.near.receive_eagerly(READ)
        except trio.BrokenResourceError as exc:
            raise HttpRefusalError(400, "the client left in the middle of its request") from exc

    async def _send_response(self, request: Forward, origin: Origin) -> bool:
        """Send the client what the origin server answers; return whether they now speak something else."""
        near, server = self.near, self.server
        is_last = has_two_lengths(request.headers)
        while True:
            event = await origin.next_event()
            if isinstance(event, h11.InformationalResponse):
                # RFC 9110, section 15.2: HTTP/1.0 knows no such responses.
                if request.http_version != b"1.0":
                    await near.send_eagerly(server.respond(interim_for_client(event)))
                if event.status_code == 101:
                    return True
            elif isinstance(event, h11.Response):
                await near.send_eagerly(server.respond(response_for_client(event, is_last=is_last)))
            elif isinstance(event, h11.Data):
                await near.send_eagerly(server.respond(h11.Data(event.data)))
            else:
                await near.send_eagerly(server.respond(h11.EndOfMessage()))
                return False

    async def _switch(self, origin: Origin) -> None:
        """Relay what the client and the server speak now (RFC 9110, section 7.8)."""
        self._origin = None
        answer = origin.trailing_data()
        self.visit.traffic.received += len(answer)
        await carry(self.door, self.visit, self.near, origin.stream, answer, self.server.trailing_data())

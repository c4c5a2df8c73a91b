"""Serve clients that speak HTTP: tunnels by CONNECT, and requests in absolute form."""

from __future__ import annotations

import math

import trio

from session_proxy.errors import BadAnswerError, DialError, DialTimeoutError, NotAllowedError
from session_proxy.inbound.carrying import carry, part
from session_proxy.inbound.front_door import FrontDoor, Visit
from session_proxy.inbound.http_forwarding import Forwarding
from session_proxy.outbound.socket_stream import PlainSocketStream
from session_proxy.outbound.transport import EarlyBytes
from session_proxy.protocol.http_connect import (
    ESTABLISHED,
    Forward,
    HttpRefusalError,
    HttpServer,
    Tunnel,
    refusal,
)

READ = 64 * 1024

# What a failed dial is answered with; any other failure is 502 (RFC 9110, section 15.6.3).
STATUSES: dict[type[DialError], int] = {NotAllowedError: 403, DialTimeoutError: 504}


async def serve_http(door: FrontDoor, visit: Visit, near: PlainSocketStream, first: bytes) -> None:
    """Serve an HTTP client whose first bytes are *first*, request after request.

    Raises:
      HttpRefusalError: a request is none, or none for a proxy; the client has been told.
      trio.TooSlowError: the client did not finish its first request in time; it has been told.
      BadAnswerError: an origin server's answer is none; the client has been told where it still could be.
      trio.BrokenResourceError: the client left.

    """
    server = HttpServer()
    server.receive_data(first)
    forwarding = Forwarding(door, visit, near, server)
    request: Tunnel | Forward | None = None
    try:
        while (request := await _next_request(door, near, server, is_first=request is None)) is not None:
            if not _admits(door, request):
                visit.ended("auth-failed", "no credentials, or wrong ones")
                answer = refusal(407, "this proxy wants a user and a password", method=_method(request))
                await part(near, answer)
                return
            if isinstance(request, Tunnel):
                await _tunnel(door, visit, near, server, request)
                return
            if not await forwarding.serve(request):
                break
        await part(near, b"")
    except DialError as exc:
        # What became of the dial is noted already.
        status = STATUSES.get(type(exc), 502)
        await part(near, refusal(status, str(exc), method=_method(request)))
    except HttpRefusalError as exc:
        if not server.has_responded:
            await part(near, refusal(exc.status, str(exc), method=_method(request)))
        raise
    except BadAnswerError as exc:
        if server.has_responded:
            # Half an answer must not look like a whole one.
            near.reset_on_close()
        else:
            await part(near, refusal(502, str(exc), method=_method(request)))
        raise
    except trio.TooSlowError:
        await part(near, refusal(408, f"no complete request within {door.limits.handshake:g} s"))
        raise
    finally:
        await forwarding.aclose()


async def _next_request(
    door: FrontDoor, near: PlainSocketStream, server: HttpServer, *, is_first: bool
) -> Tunnel | Forward | None:
    """Return the next request, or `None` where there comes none.

    The first one has the limit of a handshake, and too late is too late. Between requests a client may wait
    for as long as any connection may be idle, and may leave.
    """
    limit = door.limits.handshake if is_first else door.limits.idle
    event = server.next_event()
    if isinstance(event, Tunnel | Forward):
        return event
    with door.pause(), trio.move_on_after(limit) as waiting:
        while event is None and server.takes_data:
            server.receive_data(await near.receive_eagerly(READ))
            event = server.next_event()
    if is_first and waiting.cancelled_caught:
        raise trio.TooSlowError
    return event if isinstance(event, Tunnel | Forward) else None


def _admits(door: FrontDoor, request: Tunnel | Forward) -> bool:
    if door.auth is None:
        return True
    presented = request.credentials
    return presented is not None and door.admits(presented.user, presented.password)


def _method(request: Tunnel | Forward | None) -> bytes:
    return request.method if isinstance(request, Forward) else b"CONNECT"


async def _tunnel(
    door: FrontDoor, visit: Visit, near: PlainSocketStream, server: HttpServer, request: Tunnel
) -> None:
    early = EarlyBytes(server.trailing_data())
    far = await door.dial(visit, near, request.target, early=early, grace=math.inf if early.data else 0.0)
    await carry(door, visit, near, far, ESTABLISHED, early.left)

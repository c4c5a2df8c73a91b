"""Serve clients that speak SOCKS5, SOCKS4 or SOCKS4a."""

from __future__ import annotations

import math

import trio

from session_proxy.errors import (
    ClientProtocolError,
    DialError,
    DialTimeoutError,
    NotAllowedError,
    RefusedError,
    ResolutionError,
    TransportDownError,
    UnreachableError,
)
from session_proxy.inbound.carrying import carry, part
from session_proxy.inbound.front_door import FrontDoor, Visit
from session_proxy.inbound.udp_associate import open_client_socket, serve_udp_associate
from session_proxy.outbound.socket_stream import PlainSocketStream
from session_proxy.outbound.transport import EarlyBytes
from session_proxy.protocol import socks4, socks5

# More than any handshake message; also bounds what a client can send ahead of the answer to its request.
HANDSHAKE_READ = 4096

# One kind of failure, one code, so that a client can tell them apart (RFC 1928, section 6).
REPLIES: dict[type[DialError], socks5.Reply] = {
    RefusedError: socks5.Reply.CONNECTION_REFUSED,
    NotAllowedError: socks5.Reply.NOT_ALLOWED,
    UnreachableError: socks5.Reply.NETWORK_UNREACHABLE,
    ResolutionError: socks5.Reply.HOST_UNREACHABLE,
    DialTimeoutError: socks5.Reply.TTL_EXPIRED,
}


async def serve_socks5(door: FrontDoor, visit: Visit, near: PlainSocketStream, first: bytes) -> None:
    """Serve a SOCKS5 client whose first bytes are *first*.

    Raises:
      ClientProtocolError: the client broke the protocol; it has been told so.
      trio.TooSlowError: the client did not finish the handshake in time.
      trio.BrokenResourceError: the client left.

    """
    server = socks5.Socks5Server(require_credentials=door.auth is not None)
    in_time = True
    try:
        server.receive_data(first)
        door.patience.begin(near)
        try:
            request = await _negotiate(door, near, server)
        finally:
            in_time = door.patience.end(near)
    except ClientProtocolError as exc:
        if not in_time:
            raise trio.TooSlowError from exc
        await part(near, server.data_to_send())
        if isinstance(exc, socks5.NoCredentialsError):
            visit.ended("auth-failed", str(exc))
            return
        raise
    if request is None:
        visit.ended("auth-failed", "wrong credentials")
        await part(near, server.data_to_send())
        return
    if isinstance(request, socks5.UdpAssociate):
        await _associate(door, visit, near, server, request)
        return
    early = EarlyBytes(server.trailing_data())
    try:
        far = await door.dial(visit, near, request.target, early=early, grace=math.inf if early.data else 0.0)
    except DialError as exc:
        server.reply(REPLIES.get(type(exc), socks5.Reply.GENERAL_FAILURE))
        await part(near, server.data_to_send())
        return
    server.reply(socks5.Reply.SUCCEEDED)
    await carry(door, visit, near, far, server.data_to_send(), early.left)


async def _negotiate(
    door: FrontDoor, near: PlainSocketStream, server: socks5.Socks5Server
) -> socks5.Request | None:
    """Return the client's request, or `None` where its credentials are wrong."""
    while True:
        event = server.next_event()
        if isinstance(event, socks5.Connect | socks5.UdpAssociate):
            return event
        if isinstance(event, socks5.Credentials):
            if not door.admits(event.user, event.password):
                server.reject_credentials()
                return None
            server.accept_credentials()
        if answer := server.data_to_send():
            await near.send_eagerly(answer)
        if event is None:
            server.receive_data(await near.receive_eagerly(HANDSHAKE_READ))


async def _associate(
    door: FrontDoor,
    visit: Visit,
    near: PlainSocketStream,
    server: socks5.Socks5Server,
    request: socks5.UdpAssociate,
) -> None:
    visit.protocol = "socks5-udp"
    try:
        sock = open_client_socket(near)
    except OSError as exc:
        visit.ended(TransportDownError.reason, f"no socket for datagrams: {exc.strerror}")
        server.reply(socks5.Reply.GENERAL_FAILURE)
        await part(near, server.data_to_send())
        return
    with sock:
        host, port, *_ = sock.getsockname()
        server.reply(socks5.Reply.SUCCEEDED, host, port)
        await near.send_eagerly(server.data_to_send())
        await serve_udp_associate(door, visit, near, sock, request.port)


async def serve_socks4(door: FrontDoor, visit: Visit, near: PlainSocketStream, first: bytes) -> None:
    """Serve a SOCKS4 or SOCKS4a client whose first bytes are *first*; raises as `serve_socks5` does."""
    server = socks4.Socks4Server()
    try:
        server.receive_data(first)
        request = server.next_event()
        if request is None:
            with trio.fail_after(door.limits.handshake):
                while (request := server.next_event()) is None:
                    server.receive_data(await near.receive_eagerly(HANDSHAKE_READ))
    except ClientProtocolError:
        await part(near, server.data_to_send())
        raise
    if door.auth is not None:
        # The user that SOCKS4 names is no proof of anything.
        server.reply(socks4.Reply.USER_NOT_CONFIRMED)
        visit.target = request.target
        visit.ended("auth-failed", "SOCKS4 knows no password; use SOCKS5 or HTTP")
        await part(near, server.data_to_send())
        return
    early = EarlyBytes(server.trailing_data())
    try:
        far = await door.dial(visit, near, request.target, early=early, grace=math.inf if early.data else 0.0)
    except DialError:
        server.reply(socks4.Reply.REJECTED)
        await part(near, server.data_to_send())
        return
    server.reply(socks4.Reply.GRANTED)
    await carry(door, visit, near, far, server.data_to_send(), early.left)

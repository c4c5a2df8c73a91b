"""Listen on the addresses that a person wrote, and say in their words why one cannot be had."""

from __future__ import annotations

import errno
import socket

import trio

from session_proxy.errors import ListenError
from session_proxy.profile.model import ListenAddress

REMEDIES = {
    errno.EADDRINUSE: "another program listens there; stop it or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "ports below 1024 need a privilege; choose a higher one",
}


async def open_listeners(address: ListenAddress) -> list[trio.SocketListener]:
    """Listen on *address*: on several sockets where its host is a name with several addresses.

    Raises:
      ListenError: it cannot be had.

    """
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host)
    except socket.gaierror as exc:
        raise ListenError(f"cannot listen on {address}: {address.host!r} has no address here") from exc
    except OSError as exc:
        cause = exc.__cause__ if isinstance(exc.__cause__, OSError) else exc
        remedy = REMEDIES.get(cause.errno or 0, cause.strerror or str(cause))
        raise ListenError(f"cannot listen on {address}: {remedy}") from exc


def bound_address(listener: trio.SocketListener) -> str:
    """Return the address that *listener* is bound to, as ``HOST:PORT``."""
    host, port = listener.socket.getsockname()[:2]
    return str(ListenAddress(host, port))

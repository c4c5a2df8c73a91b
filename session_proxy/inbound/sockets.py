"""Open the sockets that the front door listens on."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

import attrs
import trio

from session_proxy.errors import ListenError
from session_proxy.profile.model import ListenAddress

# Clients that the kernel may hold for us. It caps this at /proc/sys/net/core/somaxconn (4096 by default).
BACKLOG = 4096

# With TCP_DEFER_ACCEPT, a client that says nothing is shown to us after this many seconds all the same, so
# that the limit on its handshake begins to run.
DEFER = 1


@attrs.frozen(eq=False)
class Taken:
    """The *sockets* that are bound to *address*, as a person writes it: a name may stand for several."""

    address: ListenAddress
    sockets: tuple[socket.socket, ...]

    def close(self) -> None:
        """Close them."""
        for sock in self.sockets:
            sock.close()


async def open_listeners(addresses: Sequence[ListenAddress]) -> list[socket.socket]:
    """Listen on *addresses*; a name stands for all of its addresses, port 0 for any free port.

    An IPv6 address accepts no IPv4 clients, so that "0.0.0.0" and "::" can be listened on side by side.

    Raises:
      ListenError: an address cannot be listened on; then none is.

    """
    listeners = await bind_sockets(addresses)
    try:
        start_listening(listeners)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


async def bind_sockets(addresses: Sequence[ListenAddress]) -> list[socket.socket]:
    """Take *addresses* as `open_listeners` does, but turn clients away until `start_listening`.

    Raises:
      ListenError: an address cannot be had; then none is taken.

    """
    return [sock for taken in await take(addresses) for sock in taken.sockets]


async def take(addresses: Sequence[ListenAddress]) -> list[Taken]:
    """Take *addresses* as `bind_sockets` does, and say which sockets are whose.

    Raises:
      ListenError: an address cannot be had; then none is taken.

    """
    taken: list[Taken] = []
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            port = address.port
            first = len(sockets)
            for family, name in await _look_up(address):
                sock = _bind(family, (name, port), address)
                sockets.append(sock)
                # The other addresses of a name get the port that the first has got.
                port = socket_name(sock).port
            taken.append(Taken(address, tuple(sockets[first:])))
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return taken


def start_listening(sockets: Sequence[socket.socket]) -> None:
    """Have the kernel accept clients on *sockets*, which are bound.

    Raises:
      ListenError: somebody else listens on such an address since.

    """
    for sock in sockets:
        try:
            sock.listen(BACKLOG)
        except OSError as exc:
            raise _error(socket_name(sock), exc) from exc


def socket_name(sock: socket.socket) -> ListenAddress:
    """Return the address that *sock* is bound to."""
    host, port, *_ = sock.getsockname()
    return ListenAddress(host, port)


async def _look_up(address: ListenAddress) -> list[tuple[int, str]]:
    try:
        found = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        raise ListenError(
            f"cannot listen on {address}: the host has no address; write an IP address"
        ) from exc
    return list(dict.fromkeys((family, str(name[0])) for family, _, _, _, name in found))


def _bind(family: int, name: tuple[str, int], address: ListenAddress) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):
            # The first bytes are there when we hear of the client: one wait less for each. A nicety only.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER)
        sock.bind(name)
    except OSError as exc:
        sock.close()
        raise _error(address, exc) from exc
    return sock


def _error(address: ListenAddress, exc: OSError) -> ListenError:
    return ListenError(f"cannot listen on {address}: {_reason(exc)}")


def _reason(exc: OSError) -> str:
    match exc.errno:
        case errno.EADDRINUSE:
            return "the port is in use; stop the program that has it, or listen on another port"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; use one of its own, or 127.0.0.1"
        case errno.EACCES:
            return "ports below 1024 need privileges; listen on a higher one"
        case _:
            return exc.strerror or "the system refuses it"

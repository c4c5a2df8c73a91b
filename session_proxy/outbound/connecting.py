"""Open a TCP connection to the first of several addresses that answers (RFC 8305, "happy eyeballs")."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

import attrs
import trio

from session_proxy.errors import (
    DialError,
    DialTimeoutError,
    NotAllowedError,
    RefusedError,
    TransportDownError,
    UnreachableError,
)

# RFC 8305, section 8: the recommended "Connection Attempt Delay".
ATTEMPT_DELAY = 0.25

# A name with more addresses than this is tried at the first ones only: enough for any honest one.
MOST_ADDRESSES = 16


@attrs.frozen
class SocketAddress:
    """What `socket.socket.connect` takes: *name* is ``(host, port)`` or ``(host, port, flow, scope)``."""

    family: int
    name: tuple[str, int] | tuple[str, int, int, int]


def interleave(addresses: Sequence[SocketAddress]) -> list[SocketAddress]:
    """Return *addresses* in the resolver's order, but alternating between the families (section 4)."""
    if not addresses:
        return []
    first = [address for address in addresses if address.family == addresses[0].family]
    other = [address for address in addresses if address.family != addresses[0].family]
    mixed: list[SocketAddress] = []
    for position in range(max(len(first), len(other))):
        mixed += first[position : position + 1] + other[position : position + 1]
    return mixed[:MOST_ADDRESSES]


async def connect(address: SocketAddress) -> socket.socket:
    """Return a non-blocking socket connected to *address*, without TCP's delay of small segments.

    Raises:
      DialError: no connection; the subclass says why.

    """
    try:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
    except OSError as exc:
        raise dial_error(exc) from exc
    try:
        await _finish_connecting(sock, address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as exc:
        sock.close()
        raise dial_error(exc) from exc
    except BaseException:
        sock.close()
        raise
    return sock


async def _finish_connecting(sock: socket.socket, address: SocketAddress) -> None:
    sock.setblocking(False)
    # A second call tells at once what became of the first: on a near network it is through already,
    # which saves a round through the scheduler.
    code = sock.connect_ex(address.name)
    if code == errno.EINPROGRESS:
        code = sock.connect_ex(address.name)
    if code in (errno.EALREADY, errno.EINPROGRESS):
        await trio.lowlevel.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code not in (0, errno.EISCONN):
        raise OSError(code, "")


async def connect_first(addresses: Sequence[SocketAddress]) -> socket.socket:
    """Return a socket connected to the first of *addresses* to answer.

    A new attempt starts when the one before has failed, or after `ATTEMPT_DELAY`; the slower are dropped.

    Raises:
      DialError: none answers; of several reasons, the most telling one.

    """
    if len(addresses) == 1:
        return await connect(addresses[0])
    winners: list[socket.socket] = []
    failures: list[DialError] = []

    async def attempt(address: SocketAddress, failed: trio.Event) -> None:
        try:
            sock = await connect(address)
        except DialError as exc:
            failures.append(exc)
            failed.set()
        else:
            winners.append(sock)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(ATTEMPT_DELAY):
                    await failed.wait()
    except BaseException:
        for sock in winners:
            sock.close()
        raise
    for loser in winners[1:]:
        loser.close()
    if winners:
        return winners[0]
    raise most_telling(failures)


def most_telling(failures: Sequence[DialError]) -> DialError:
    """Return the failure that says most: an answer counts more than silence, and silence more than no way."""
    order = (RefusedError, NotAllowedError, DialTimeoutError, UnreachableError)
    for kind in order:
        for failure in failures:
            if isinstance(failure, kind):
                return failure
    return failures[0]


def dial_error(exc: OSError) -> DialError:
    """Return what the operating system's *exc* means for a person who waits for the connection."""
    match exc.errno:
        case errno.ECONNREFUSED | errno.ECONNRESET:
            return RefusedError("connection refused")
        case errno.EACCES | errno.EPERM:
            return NotAllowedError("forbidden by this machine's firewall")
        case errno.ETIMEDOUT:
            return DialTimeoutError("no answer")
        case errno.ENETUNREACH | errno.ENETDOWN:
            return UnreachableError("no route to its network")
        case errno.EHOSTUNREACH | errno.EHOSTDOWN:
            return UnreachableError("no route to the host")
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return UnreachableError("this machine has no address of that kind")
        case errno.EMFILE | errno.ENFILE | errno.ENOBUFS | errno.ENOMEM:
            return TransportDownError("this process has no more file descriptors; raise `ulimit -n`")
        case _:
            name = errno.errorcode.get(exc.errno or 0, "unknown error")
            return UnreachableError(f"the connection failed ({name})")

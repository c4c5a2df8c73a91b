"""Open a TCP connection to the first of several addresses that answers (RFC 8305, "happy eyeballs")."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

import trio

from awg_obfs.addresses import family_of
from awg_obfs.errors import DialFault, TunnelDialError
from awg_obfs.protocol.address import Address

# RFC 8305, section 8: the recommended "Connection Attempt Delay".
ATTEMPT_DELAY = 0.25

# A name with more addresses than this is tried at the first ones only: enough for any honest one.
MOST_ADDRESSES = 16

# Of several failures the first of these says most: an answer counts more than silence, and silence more than no way.
_TELLING = (
    DialFault.REFUSED,
    DialFault.NOT_ALLOWED,
    DialFault.TIMEOUT,
    DialFault.UNREACHABLE,
    DialFault.DOWN,
)


def interleave(addresses: Sequence[Address]) -> list[Address]:
    """Return *addresses* in the resolver's order, but alternating between the families (section 4)."""
    if not addresses:
        return []
    first = [address for address in addresses if family_of(address) == family_of(addresses[0])]
    other = [address for address in addresses if family_of(address) != family_of(addresses[0])]
    mixed: list[Address] = []
    for position in range(max(len(first), len(other))):
        mixed += first[position : position + 1] + other[position : position + 1]
    return mixed[:MOST_ADDRESSES]


async def connect(address: Address) -> socket.socket:
    """Return a non-blocking socket connected to *address*, without TCP's delay of small segments.

    Raises:
      TunnelDialError: no connection; its fault says why.

    """
    try:
        sock = socket.socket(family_of(address), socket.SOCK_STREAM)
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


async def _finish_connecting(sock: socket.socket, address: Address) -> None:
    sock.setblocking(False)
    # A second call tells at once what became of the first: on a near network it is through already.
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        code = sock.connect_ex(address)
    if code in (errno.EALREADY, errno.EINPROGRESS):
        await trio.lowlevel.wait_writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code not in (0, errno.EISCONN):
        raise OSError(code, "")


async def connect_first(addresses: Sequence[Address]) -> socket.socket:
    """Return a socket connected to the first of *addresses* to answer.

    A new attempt starts when the one before has failed, or after `ATTEMPT_DELAY`; the slower are dropped.

    Raises:
      TunnelDialError: none answers; of several reasons, the most telling one.

    """
    if len(addresses) == 1:
        return await connect(addresses[0])
    winners: list[socket.socket] = []
    failures: list[TunnelDialError] = []

    async def attempt(address: Address, failed: trio.Event) -> None:
        try:
            sock = await connect(address)
        except TunnelDialError as exc:
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
    raise min(failures, key=lambda failure: _TELLING.index(failure.fault))


def dial_error(exc: OSError) -> TunnelDialError:
    """Return what the operating system's *exc* means for a person who waits for the connection."""
    match exc.errno:
        case errno.ECONNREFUSED | errno.ECONNRESET:
            return TunnelDialError(DialFault.REFUSED, "connection refused")
        case errno.EACCES | errno.EPERM:
            return TunnelDialError(DialFault.NOT_ALLOWED, "forbidden by the server's firewall")
        case errno.ETIMEDOUT:
            return TunnelDialError(DialFault.TIMEOUT, "no answer")
        case errno.ENETUNREACH | errno.ENETDOWN:
            return TunnelDialError(DialFault.UNREACHABLE, "the server has no route to its network")
        case errno.EHOSTUNREACH | errno.EHOSTDOWN:
            return TunnelDialError(DialFault.UNREACHABLE, "the server has no route to the host")
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return TunnelDialError(DialFault.UNREACHABLE, "the server has no address of that kind")
        case errno.EMFILE | errno.ENFILE | errno.ENOBUFS | errno.ENOMEM:
            return TunnelDialError(DialFault.DOWN, "the server has no more file descriptors")
        case _:
            name = errno.errorcode.get(exc.errno or 0, "unknown error")
            return TunnelDialError(DialFault.UNREACHABLE, f"the connection failed ({name})")

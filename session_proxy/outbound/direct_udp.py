"""Datagrams from this machine's own network: one socket for both versions of IP."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable

import attrs
import trio

from session_proxy.errors import InvalidTargetError, ResolutionError
from session_proxy.outbound.connecting import SocketAddress, dial_error
from session_proxy.target import Target

# The largest payload of UDP over IPv4 is 65 507 bytes; one buffer takes any.
MAX_DATAGRAM = 65535

# Names that one association remembers, so that not every datagram is a look-up, and for how many seconds:
# what applications' own caches do, and short enough for a name that moves.
MOST_NAMES = 64
NAME_LIFE = 60.0

LookUp = Callable[[Target, int], Awaitable[list[SocketAddress]]]


@attrs.define(eq=False)
class DirectDatagrams:
    """A `DatagramAssociation` on a socket of its own. Open it with `DirectDatagrams.open`."""

    _socket: socket.socket
    _look_up: LookUp
    _names: dict[Target, tuple[float, tuple[str, int]]] = attrs.field(
        factory=dict[Target, tuple[float, tuple[str, int]]], init=False, repr=False
    )

    @classmethod
    def open(cls, look_up: LookUp) -> DirectDatagrams:
        """Open a socket; *look_up* finds the addresses of a name.

        Raises:
          TransportDownError: this process may open no more sockets.

        """
        try:
            return cls(_dual_stack_socket(), look_up)
        except OSError as exc:
            raise dial_error(exc) from exc

    async def send(self, target: Target, payload: bytes) -> None:
        """Send one datagram; one that does not go out at once is lost, as on any full queue.

        Raises:
          ResolutionError: *target* names a host that has no address.

        """
        address = target.address
        name = (target.host, target.port) if address is not None else await self._resolved(target)
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this association is closed")
        if self._socket.family == socket.AF_INET6 and ":" not in name[0]:
            name = (f"::ffff:{name[0]}", name[1])
        # No route, too large, a full buffer: all are ways of losing a datagram.
        with contextlib.suppress(OSError):
            self._socket.sendto(payload, name)

    async def receive(self) -> tuple[Target, bytes]:
        """Return the next datagram and its sender."""
        while True:
            if self._socket.fileno() < 0:
                raise trio.ClosedResourceError("this association is closed")
            try:
                payload, name = self._socket.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError:
                # An ICMP answer to an earlier datagram: that one is lost, the association is not.
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                with contextlib.suppress(InvalidTargetError):
                    return Target.of(name[0].partition("%")[0], name[1]), payload

    async def aclose(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()

    async def _resolved(self, target: Target) -> tuple[str, int]:
        now = trio.current_time()
        known = self._names.get(target)
        if known is not None and now < known[0]:
            return known[1]
        self._names.pop(target, None)
        usable = [
            address.name[:2]
            for address in await self._look_up(target, socket.SOCK_DGRAM)
            if address.family == socket.AF_INET or self._socket.family == socket.AF_INET6
        ]
        if not usable:
            raise ResolutionError("the name has no address here")
        while len(self._names) >= MOST_NAMES:
            self._names.pop(next(iter(self._names)))
        self._names[target] = (now + NAME_LIFE, usable[0])
        return usable[0]


def _dual_stack_socket() -> socket.socket:
    """Return a bound UDP socket: IPv6 that also carries IPv4, or IPv4 alone where there is no IPv6."""
    if socket.has_ipv6:
        with contextlib.suppress(OSError):
            return _bound(socket.AF_INET6, "::")
    return _bound(socket.AF_INET, "0.0.0.0")  # noqa: S104


def _bound(family: int, host: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, 0))
    except OSError:
        sock.close()
        raise
    return sock

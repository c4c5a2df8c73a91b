"""UDP associations at the server: a socket for each, and names looked up on the way."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable

import attrs
import trio

from awg_obfs.addresses import SocketAddress, from_socket, to_socket
from awg_obfs.background import open_background
from awg_obfs.destinations import Destinations
from awg_obfs.errors import TunnelDialError, WireError
from awg_obfs.named_datagrams import MOST_WAITING, Name, NamedDatagrams
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.datagram_wire import (
    Datagram,
    Piece,
    Whole,
    decode_body,
    decode_frame,
    encode_frames,
)
from awg_obfs.protocol.reassembly import Reassembly
from awg_obfs.protocol.tunnel_wire import encode_address

# One buffer takes the longest datagram there can be.
MAX_DATAGRAM = 65535

# Far ends whose spelling an association remembers.
MOST_SOURCES = 256

# So many datagrams are read from a socket before others have their turn.
MOST_AT_ONCE = 32


@attrs.define
class Counters:
    """Datagrams that the client *sent* and *received*, and that were *dropped* on the way."""

    sent: int = 0
    received: int = 0
    dropped: int = 0


@attrs.define(eq=False)
class Association:
    """One association: frames of the tunnel on one side, a UDP socket on the other.

    *transmit* takes frames for the client, none longer than *room* bytes. The client hears from addresses that the
    policy lets it reach, and from no others.
    """

    number: int
    _destinations: Destinations
    _transmit: Callable[[bytes], None] = attrs.field(repr=False)
    _room: int
    counters: Counters = attrs.field(factory=Counters, init=False)
    _socket: socket.socket = attrs.field(init=False, repr=False)
    _reassembly: Reassembly = attrs.field(factory=Reassembly, init=False, repr=False)
    _datagrams_sent: int = attrs.field(default=0, init=False)
    _names: NamedDatagrams = attrs.field(factory=NamedDatagrams, init=False, repr=False)
    _sources: dict[SocketAddress, bytes] = attrs.field(
        factory=dict[SocketAddress, bytes], init=False, repr=False
    )
    _wanted: trio.MemorySendChannel[Name] = attrs.field(init=False, repr=False)
    _unknown: trio.MemoryReceiveChannel[Name] = attrs.field(init=False, repr=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # Each of these names has a datagram that waits: there is always room for one more.
        self._wanted, self._unknown = trio.open_memory_channel[Name](MOST_WAITING)
        # Last: from here on there is something to be closed.
        self._socket = _dual_stack_socket()

    def take(self, held: Whole | Piece, now: float) -> None:
        """Take what a frame from the client holds."""
        body = held.body if isinstance(held, Whole) else self._reassembly.add(held, now)
        if body is None:
            return
        try:
            datagram = decode_body(body)
            address = self._destinations.literal(datagram.host, datagram.port)
        except (WireError, TunnelDialError):
            self.counters.dropped += 1
            return
        if address is None:
            known = self._names.answer((datagram.host, datagram.port), now)
            if known is None:
                self._let_wait(datagram)
                return
            address = known.address
        self._send(address, datagram.payload)

    async def run(self) -> None:
        """Carry datagrams to the client, and look names up, until cancelled or `expire`."""
        with self._scope:
            async with open_background() as nursery:
                nursery.start_soon(self._look_names_up, nursery)
                await self._receive()

    def close(self) -> None:
        """Give the socket back; `run` must be over."""
        self._socket.close()

    def progress(self) -> int:
        """See `idleness.Watched`."""
        return self.counters.sent + self.counters.received

    def expire(self) -> None:
        """Be over; see `idleness.Watched`."""
        self._scope.cancel()

    def _let_wait(self, datagram: Datagram) -> None:
        name = datagram.host, datagram.port
        is_new = not self._names.is_waited_for(name)
        if not self._names.let_wait(datagram):
            self.counters.dropped += 1
        elif is_new:
            self._wanted.send_nowait(name)

    async def _look_names_up(self, nursery: trio.Nursery) -> None:
        async for name in self._unknown:
            # Each by itself: a slow one is not in the way of others.
            nursery.start_soon(self._look_up, name)

    async def _look_up(self, name: Name) -> None:
        address = None
        with contextlib.suppress(TunnelDialError):
            address = await self._address_of(*name)
        for datagram in self._names.learn(name, address, trio.current_time()):
            self._send(address, datagram.payload)

    async def _address_of(self, host: str, port: int) -> Address:
        addresses = await self._destinations.addresses(host, port)
        for address in addresses:
            if to_socket(address, self._socket.family) is not None:
                return address
        return addresses[0]

    def _send(self, address: Address | None, payload: bytes) -> None:
        target = None if address is None else to_socket(address, self._socket.family)
        if target is not None:
            # No route, too large, a full buffer: all are ways of losing a datagram.
            with contextlib.suppress(OSError):
                self._socket.sendto(payload, target)
                self.counters.sent += 1
                return
        self.counters.dropped += 1

    async def _receive(self) -> None:
        sock = self._socket
        while True:
            await trio.lowlevel.wait_readable(sock)
            for _ in range(MOST_AT_ONCE):
                try:
                    payload, source = sock.recvfrom(MAX_DATAGRAM)
                except BlockingIOError:
                    break
                except OSError:
                    # An ICMP answer to an earlier datagram: that one is lost, the association is not.
                    continue
                self._deliver(payload, source)

    def _deliver(self, payload: bytes, source: SocketAddress) -> None:
        address = self._sources.get(source)
        if address is None:
            address = self._judged(from_socket(source))
            while len(self._sources) >= MOST_SOURCES:
                self._sources.pop(next(iter(self._sources)))
            self._sources[source] = address
        frames: list[bytes] = []
        if address:
            frames = encode_frames(self.number, address, payload, self._room, self._datagrams_sent)
        if not frames:
            self.counters.dropped += 1
            return
        self._datagrams_sent += 1
        for frame in frames:
            self._transmit(frame)
        self.counters.received += 1

    def _judged(self, source: Address) -> bytes:
        """Return how *source* is written; empty where nobody may hear from it."""
        host = source[0].partition("%")[0]
        if not self._destinations.permits(ipaddress.ip_address(host)):
            return b""
        return encode_address(host, source[1])


@attrs.define(eq=False)
class AssociationTable:
    """The associations of one client, by their numbers; *most* at a time."""

    most: int
    _open: dict[int, Association] = attrs.field(factory=dict[int, Association], init=False, repr=False)

    @property
    def is_full(self) -> bool:
        """Whether there must not be another one."""
        return len(self._open) >= self.most

    def add(self, association: Association) -> None:
        """Let *association* have its frames."""
        self._open[association.number] = association

    def discard(self, association: Association) -> None:
        """Forget *association*."""
        self._open.pop(association.number, None)

    def take(self, frame: bytes, now: float) -> None:
        """Hand a frame from the client to its association; one that nobody wants is dropped."""
        try:
            held = decode_frame(frame)
        except WireError:
            return
        association = self._open.get(held.association)
        if association is not None:
            association.take(held, now)


def _dual_stack_socket() -> socket.socket:
    """Return a bound UDP socket: IPv6 that also carries IPv4, or IPv4 alone where there is no IPv6."""
    if socket.has_ipv6:
        with contextlib.suppress(OSError):
            return _bound(socket.AF_INET6, "::")
    return _bound(socket.AF_INET, "0.0.0.0")  # noqa: S104


def _bound(family: socket.AddressFamily, host: str) -> socket.socket:
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

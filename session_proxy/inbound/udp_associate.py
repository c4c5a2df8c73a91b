"""Serve UDP ASSOCIATE (RFC 1928, section 7): datagrams, each routed by its own destination.

An association lives for as long as the TCP connection that asked for it. Towards the client it is one
socket; towards the destinations it has one way per upstream, opened when the first datagram takes it, and
closed again when none has for a while.
"""

from __future__ import annotations

import contextlib
import socket

import attrs
import trio

from session_proxy.errors import DialError, UdpUnsupportedError
from session_proxy.events import Notice, UdpAssociationClosed
from session_proxy.inbound.front_door import CLOSING, FrontDoor, Visit
from session_proxy.inbound.idleness import Watched
from session_proxy.inbound.relaying import RelayEnd
from session_proxy.outbound.socket_stream import PlainSocketStream
from session_proxy.outbound.transport import DatagramAssociation
from session_proxy.policy.rules import REJECT, Decision
from session_proxy.protocol.socks5_udp import decode_datagram, encode_datagram
from session_proxy.target import Target

# The largest datagram there is.
MAX_DATAGRAM = 65535

# Datagrams taken at once before other tasks have their turn.
BATCH = 64

# Upstreams that one association uses at the same time. More carry UDP in no profile that we can think of.
MOST_WAYS = 16

# Datagrams to names that wait for a look-up, per association; more are dropped, as by any full queue.
MOST_PENDING = 64

# RFC 4787, REQ-5: a mapping must not expire in less than two minutes; five are recommended.
WAY_LIFE = 300.0


@attrs.define(eq=False)
class Way(Watched):
    """One upstream's part of an association."""

    datagrams: DatagramAssociation
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    moved: int = 0

    def progress(self) -> int:
        """Return how many datagrams have moved so far."""
        return self.moved

    def expire(self) -> None:
        """End: the next datagram opens it anew."""
        self.scope.cancel()


@attrs.define(eq=False)
class Association(Watched):
    """One client's datagrams. *client_port* is 0 until the client has said or shown it."""

    door: FrontDoor
    visit: Visit
    near: PlainSocketStream
    socket: socket.socket
    client_host: str
    client_port: int
    sent: int = 0
    received: int = 0
    dropped: int = 0
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _ways: dict[str, Way] = attrs.field(factory=dict[str, Way], init=False)
    _without_udp: set[str] = attrs.field(factory=set[str], init=False)
    _told: dict[tuple[str, ...], str] = attrs.field(factory=dict[tuple[str, ...], str], init=False)
    _opening: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _pending: int = attrs.field(default=0, init=False)

    def progress(self) -> int:
        """Return how many datagrams have moved so far, both ways together."""
        return self.sent + self.received

    def expire(self) -> None:
        """End: nothing has moved for too long."""
        self.visit.ended(RelayEnd.IDLE.value)
        self.scope.cancel()

    async def run(self) -> None:
        """Relay datagrams until the client's TCP connection ends."""
        with self.door.relays.watched(self), self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_client)
                await self._carry_up(nursery)

    async def _watch_client(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            # What the client may send on this connection means nothing (RFC 1928, section 7).
            while await self.near.receive_some(4096):
                pass
        if self._told and not self.sent:
            self.visit.ended(UdpUnsupportedError.reason, "; ".join(self._told.values()))
        else:
            self.visit.ended(RelayEnd.FINISHED.value)
        self.scope.cancel()

    async def _carry_up(self, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            for _ in range(BATCH):
                try:
                    datagram, sender = self.socket.recvfrom(MAX_DATAGRAM)
                except BlockingIOError:
                    break
                except OSError:
                    # The client's port is closed (ICMP): as if the datagram had been lost on the way there.
                    continue
                decoded = decode_datagram(datagram) if self._is_client(sender[0], sender[1]) else None
                if decoded is None:
                    self.dropped += 1
                    continue
                self.client_port = sender[1]
                await self._forward(nursery, *decoded)

    def _is_client(self, host: str, port: int) -> bool:
        """Tell whether a datagram comes from where the client said, or first sent from."""
        return host == self.client_host and self.client_port in (0, port)

    async def _forward(self, nursery: trio.Nursery, target: Target, payload: bytes) -> None:
        if target.address is not None:
            await self._send(nursery, target, payload)
        elif self._pending < MOST_PENDING:
            # A name may have to be looked up: the datagrams behind this one do not wait for it.
            self._pending += 1
            nursery.start_soon(self._send_to_name, nursery, target, payload)
        else:
            self.dropped += 1

    async def _send_to_name(self, nursery: trio.Nursery, target: Target, payload: bytes) -> None:
        try:
            with trio.move_on_after(self.door.limits.connect):
                await self._send(nursery, target, payload)
        finally:
            self._pending -= 1

    async def _send(self, nursery: trio.Nursery, target: Target, payload: bytes) -> None:
        decision = await self.door.dialer.decide(target)
        self.visit.rule = decision.rule
        async with self._opening:
            way = await self._way(nursery, decision.upstreams)
        if way is None:
            self.dropped += 1
            self._tell_of_lacking_udp(target, decision)
            return
        try:
            await way.datagrams.send(target, payload)
        except (DialError, trio.ClosedResourceError, trio.BrokenResourceError):
            self.dropped += 1
            return
        way.moved += 1
        self.sent += 1
        self.visit.traffic.sent += len(payload)

    def _tell_of_lacking_udp(self, target: Target, decision: Decision) -> None:
        """Tell people, once per association and route, why nothing comes of datagrams; the client sees nothing."""
        names = decision.upstreams
        if names in self._told or not self._without_udp.issuperset(names):
            return
        self._told[names] = lack = f"no upstream of {decision.rule} carries UDP ({', '.join(names)})"
        self.visit.upstream = self.visit.upstream or names[0]
        dropped = f"datagrams from {self.visit.client} to {target} are dropped"
        advice = 'list "direct" there too, or let the program use TCP'
        self.door.notify(Notice(names[0], f"{lack}: {dropped}; {advice}", "warning"))

    async def _way(self, nursery: trio.Nursery, upstreams: tuple[str, ...]) -> Way | None:
        """Return the way through the first of *upstreams* that carries UDP now."""
        for name in upstreams:
            if name == REJECT:
                return None
            if name in self._ways:
                return self._ways[name]
            if name in self._without_udp or len(self._ways) >= MOST_WAYS:
                continue
            try:
                datagrams = await self.door.dialer.transports[name].open_udp()
            except UdpUnsupportedError:
                self._without_udp.add(name)
            except (DialError, KeyError):
                # A change of the profile may have taken it away since the decision.
                continue
            else:
                self.visit.upstream = name
                self._ways[name] = way = Way(datagrams, quiet_limit=WAY_LIFE)
                nursery.start_soon(self._carry_down, name, way)
                return way
        return None

    async def _carry_down(self, name: str, way: Way) -> None:
        try:
            with self.door.relays.watched(way), way.scope, contextlib.suppress(trio.BrokenResourceError):
                while True:
                    source, payload = await way.datagrams.receive()
                    way.moved += 1
                    try:
                        self.socket.sendto(
                            encode_datagram(source, payload), (self.client_host, self.client_port)
                        )
                    except OSError:
                        self.dropped += 1
                    else:
                        self.received += 1
                        self.visit.traffic.received += len(payload)
        finally:
            del self._ways[name]
            with trio.move_on_after(CLOSING, shield=True):
                await way.datagrams.aclose()


def open_client_socket(near: PlainSocketStream) -> socket.socket:
    """Return a UDP socket on the address where the client has reached us, so that it reaches this one too.

    Raises:
      OSError: there are no more descriptors, or the client has left.

    """
    sock = socket.socket(near.socket.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind((near.socket.getsockname()[0], 0))
    except OSError:
        sock.close()
        raise
    return sock


async def serve_udp_associate(
    door: FrontDoor, visit: Visit, near: PlainSocketStream, sock: socket.socket, client_port: int
) -> None:
    """Relay the datagrams that a client sends to *sock* until its connection *near* ends.

    *client_port* is where it sends from, 0 where it does not know. Its address is that of its connection,
    whatever it says: behind a NAT it does not know better.
    """
    client_host = visit.client.rpartition(":")[0].strip("[]")
    association = Association(door, visit, near, sock, client_host, client_port)
    try:
        await association.run()
    finally:
        door.notify(
            UdpAssociationClosed(
                id=visit.id,
                client=visit.client,
                sent=association.sent,
                received=association.received,
                dropped=association.dropped,
                duration=trio.current_time() - visit.opened,
            )
        )

"""Run a device on a UDP socket: the only place where sessions meet the network and the clock.

Everything the device produces leaves at once, in the task that caused it: those who call `PeerPath.send` gather what
belongs together themselves, as a QUIC connection does once per pass of the scheduler. So nothing is lost when a block
ends with a last word, and nothing waits for another task's turn.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from awg_obfs.addresses import is_ipv6
from awg_obfs.background import open_background
from awg_obfs.backlog import Backlog
from awg_obfs.errors import BindError
from awg_obfs.events import (
    EndpointEvent,
    NetworkChange,
    NetworkChanged,
    PathTooNarrow,
    Rebound,
    SendingFailed,
)
from awg_obfs.network import watch_network
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.device import Device
from awg_obfs.protocol.messages import Buffer
from awg_obfs.protocol.outbox import Outgoing
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.sizes import quic_datagram_size
from awg_obfs.udp import Traffic, UdpSocket, error_name

# The device is woken this long after its timer: no wake-up comes to nothing because of a rounding error, and
# neighbouring timers share one.
GRANULARITY = 0.001

# How long the last socket is still read after rebinding: answers to it are under way.
LINGER = 3.0

# How often the same fault of the network is told.
FAULT_INTERVAL = 10.0

# A socket that only gives errors is asked this often.
FAULTY_PAUSE = 0.05

ETHERNET_MTU = 1500

Receive = Callable[[Sequence[Buffer]], None]
"""Takes what one peer sent, in order. Must not block; the buffers are the receiver's to keep."""


@attrs.define(eq=False)
class PeerPath:
    """The way to one peer: a `DatagramPath`, made by `Endpoint.path`.

    What the peer sends goes to *receiver* while there is one, else to the endpoint's.
    """

    peer: Peer
    _endpoint: Endpoint = attrs.field(repr=False)
    _path_mtu: int
    receiver: Receive | None = attrs.field(default=None, repr=False)
    removed: bool = attrs.field(default=False, init=False)
    """Whether the device does not know the peer any more: what is still sent is dropped."""

    @property
    def max_datagram_size(self) -> int:
        """The longest plaintext whose datagram gets through, where the peer is just now."""
        address = self.peer.endpoint
        # Nobody has heard of it yet: the longer headers fit anywhere.
        ipv6 = address is None or is_ipv6(address)
        return quic_datagram_size(self._path_mtu, self._endpoint.device.parameters.s4, ipv6=ipv6)

    @property
    def round_trip(self) -> float | None:
        """How long the peer took to answer when keys were last agreed on, in seconds."""
        return self.peer.round_trip

    def send(self, datagrams: Sequence[Buffer]) -> None:
        """Send *datagrams* as one container. They may get lost, and do once the endpoint is closed."""
        if not self.removed:
            self._endpoint.send(self.peer, datagrams)


class Endpoint:
    """A device on its socket; made by `open_endpoint`.

    Who calls the device itself (`Device.add_peer`, `Device.remove_peer`, …) calls `pump` afterwards.
    """

    def __init__(
        self,
        device: Device,
        bind: Address,
        nursery: trio.Nursery,
        receive: Callable[[Peer, Sequence[Buffer]], None],
        on_event: Callable[[EndpointEvent], None],
        *,
        server: bool,
        offload: bool,
    ) -> None:
        self.device = device
        self.traffic = Traffic()
        self._bind = bind
        self._nursery = nursery
        self._receive = receive
        self._on_event = on_event
        self._server = server
        self._offload = offload
        self._paths: dict[Peer, PeerPath] = {}
        self._closed = False
        self._events: list[EndpointEvent] = []
        self._told: dict[str, float] = {}
        self._pumping = False
        self._backlog = Backlog()
        self._alarm = trio.CancelScope()
        self._alarm_at = math.inf
        self._last_socket: UdpSocket | None = None
        self._socket = self._open(bind)

    # -- what the owner calls

    @property
    def address(self) -> Address:
        """Where the socket is bound."""
        return self._socket.address

    @property
    def crowded_out(self) -> int:
        """How many datagrams were dropped because too many waited for the kernel; `traffic` counts other reasons."""
        return self._backlog.dropped

    @property
    def closed(self) -> bool:
        """Whether the block has ended; nothing is sent any more."""
        return self._closed

    def path(self, peer: Peer, *, path_mtu: int = ETHERNET_MTU) -> PeerPath:
        """Return the way to *peer*, over networks that carry packets of *path_mtu* bytes."""
        path = self._paths[peer] = PeerPath(peer, self, path_mtu)
        return path

    def forget(self, peer: Peer) -> None:
        """Drop the path of *peer*: what it sends goes to the endpoint's receiver again."""
        self._paths.pop(peer, None)

    def remove(self, peer: Peer) -> None:
        """Have the device forget *peer*, with its session and path."""
        path = self._paths.pop(peer, None)
        if path is not None:
            path.removed = True
        self.device.remove_peer(peer)
        self.pump()

    def send(self, peer: Peer, plaintexts: Sequence[Buffer]) -> None:
        """Send *plaintexts* to *peer* as one container; see `Device.send`."""
        if not self._closed:
            self.device.send(peer, plaintexts, trio.current_time())
            self.pump()

    def rehandshake(self, peer: Peer) -> None:
        """Ask *peer* for new keys; see `Device.rehandshake`."""
        if not self._closed:
            self.device.rehandshake(peer, trio.current_time())
            self.pump()

    def announce(self, peer: Peer) -> None:
        """Show *peer* where we are now, without waiting for something to say: with an empty message, and new keys."""
        if not self._closed:
            now = trio.current_time()
            if peer.has_session:
                self.device.send(peer, (b"",), now)
            self.device.rehandshake(peer, now)
            self.pump()

    def renew(self, peer: Peer) -> None:
        """Do what helps where the way to *peer* seems dead: take another socket, and `announce` it."""
        if not self._closed:
            # Without another socket, this one may do.
            with contextlib.suppress(BindError):
                self.rebind()
            self.announce(peer)

    async def follow_network(self, peer: Peer) -> None:
        """`renew` the way to *peer* whenever this machine has moved or slept, also without traffic; for ever.

        For clients: servers learn from their peers where those are.
        """

        def changed(change: NetworkChange) -> None:
            self._events.append(NetworkChanged(peer, change))
            self.renew(peer)

        await watch_network(lambda: peer.endpoint, changed)

    def rebind(self, bind: Address | None = None) -> Address:
        """Take another socket, at *bind* or as at first, and return its address. The last one is read for a while yet.

        Raises:
          BindError: the system does not let us. Then all stays as it was; but where the port is a certain one, it
            was given up before, nothing moves any more, and another `rebind` is what helps.
          trio.ClosedResourceError: the block has ended.

        """
        if self._closed:
            raise trio.ClosedResourceError
        if bind is not None:
            self._bind = bind
        old = self._socket
        if self._bind[1]:
            old.close()
        self._socket = self._open(self._bind)
        if self._last_socket is not None:
            self._last_socket.close()
        self._last_socket = old
        self._nursery.start_soon(self._close_later, old)
        self._events.append(Rebound(old.address, self._socket.address))
        self._send_waiting()
        self.pump()
        return self._socket.address

    def pump(self) -> None:
        """Hand out what the device has produced. It may be called from what is called here."""
        if self._pumping:
            return
        device = self.device
        self._pumping = True
        try:
            while True:
                for outgoing in device.take_outgoing():
                    self._transmit(outgoing)
                events = (*device.take_events(), *self._events)
                incoming = device.take_incoming()
                if not events and not incoming:
                    break
                self._events.clear()
                for event in events:
                    self._on_event(event)
                for messages in incoming:
                    self._deliver(messages.peer, messages.plaintexts)
        finally:
            self._pumping = False
        self._set_alarm()

    # -- sending

    def _transmit(self, outgoing: Outgoing) -> None:
        datagrams = outgoing.datagrams
        # What waits goes first: order is worth something to QUIC.
        sent = 0 if self._backlog else self._socket.send(outgoing.address, datagrams)
        if sent < len(datagrams):
            self._backlog.add(Outgoing(outgoing.address, datagrams[sent:]))

    async def watch_room(self) -> None:
        """Send what waits when there is room again; for ever."""
        while True:
            await self._backlog.wait_crowded()
            try:
                await self._socket.wait_writable()
            except trio.ClosedResourceError:
                # There is another socket, or none: then what waits is dropped.
                await trio.lowlevel.checkpoint()
            self._send_waiting()

    def _send_waiting(self) -> None:
        self._backlog.send(self._socket.send)

    def _failed(self, address: Address, error: OSError) -> None:
        now = trio.current_time()
        name = error_name(error)
        if now >= self._told.get(name, -math.inf) + FAULT_INTERVAL:
            self._told[name] = now
            self._events.append(SendingFailed(address, error.strerror or name))

    def _narrowed(self, address: Address, size: int) -> None:
        self._events.append(PathTooNarrow(address, size))

    # -- receiving

    async def _read(self, sock: UdpSocket) -> None:
        device, faults = self.device, self.traffic.receive_faults
        while True:
            known_faults = faults.total()
            try:
                # This is also where other tasks have their turn.
                await sock.wait_readable()
            except trio.ClosedResourceError:
                return
            batch = sock.receive_batch()
            now = trio.current_time()
            for source, datagrams in batch:
                device.receive(datagrams, source, now)
            self.pump()
            if not batch and faults.total() != known_faults:
                await trio.sleep(FAULTY_PAUSE)

    def _deliver(self, peer: Peer, plaintexts: Sequence[Buffer]) -> None:
        path = self._paths.get(peer)
        if path is not None and path.receiver is not None:
            path.receiver(plaintexts)
        else:
            self._receive(peer, plaintexts)

    # -- time

    async def keep_time(self) -> None:
        """Fire the device's timers, for ever."""
        while True:
            timer = self.device.next_timer()
            self._alarm_at = math.inf if timer is None else max(timer, trio.current_time())
            with trio.CancelScope(deadline=self._alarm_at + GRANULARITY) as self._alarm:
                await trio.sleep_forever()
            self.device.handle_timer(trio.current_time())
            self.pump()

    def _set_alarm(self) -> None:
        """Wake `keep_time` earlier where that is needed. Later is not worth the effort: it finds out itself."""
        timer = self.device.next_timer()
        if timer is not None and timer < self._alarm_at:
            self._alarm_at = timer
            self._alarm.deadline = timer + GRANULARITY

    # -- sockets

    def _open(self, bind: Address) -> UdpSocket:
        sock = UdpSocket(
            bind,
            offload=self._offload,
            server=self._server,
            traffic=self.traffic,
            on_fault=self._failed,
            on_narrow=self._narrowed,
        )
        self._nursery.start_soon(self._read, sock)
        return sock

    async def _close_later(self, sock: UdpSocket) -> None:
        await trio.sleep(LINGER)
        sock.close()

    def close(self) -> None:
        """Give the sockets back; what is sent from now on is lost."""
        self._closed = True
        self._socket.close()
        if self._last_socket is not None:
            self._last_socket.close()
        self._backlog.clear()


@asynccontextmanager
async def open_endpoint(
    device: Device,
    bind: Address,
    receive: Callable[[Peer, Sequence[Buffer]], None],
    on_event: Callable[[EndpointEvent], None] = lambda _event: None,
    *,
    server: bool = False,
    offload: bool = True,
) -> AsyncGenerator[Endpoint]:
    """Run *device* on a socket bound to *bind* while the block lasts.

    Args:
      device: Not driven by anybody else. Its times are `trio.current_time`'s.
      bind: Where to listen; port 0 is any free one, and ``::`` takes IPv4 as well. To be a client,
        `addresses.any_address_like` the server's.
      receive: Called with what a peer without a `PeerPath.receiver` sends. Must not block.
      on_event: Called with what happens. Must not block.
      server: Whether peers write to a certain address of ours, which is to be the one that answers them.
      offload: Whether to use what the kernel has for many datagrams at once.

    Raises:
      BindError: the system does not let us listen there.

    """
    async with open_background() as nursery:
        endpoint = Endpoint(device, bind, nursery, receive, on_event, server=server, offload=offload)
        try:
            nursery.start_soon(endpoint.keep_time)
            nursery.start_soon(endpoint.watch_room)
            endpoint.pump()
            yield endpoint
        finally:
            endpoint.close()

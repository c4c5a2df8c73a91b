"""Serve tunnels: peers come in by AmneziaWG sessions, speak QUIC inside, and go where the policy allows.

Strangers get no answer (see protocol.device). Each peer has one QUIC connection at a time: where it begins another,
it has forgotten the one before; where it goes on with one that we have forgotten, it is told so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from awg_obfs.addresses import is_ipv6
from awg_obfs.background import open_background
from awg_obfs.destinations import Destinations
from awg_obfs.devices import make_device
from awg_obfs.endpoint import ETHERNET_MTU, Endpoint, open_endpoint
from awg_obfs.errors import NarrowPathError
from awg_obfs.events import Rejection, SessionDown, SessionUp, TunnelEvent
from awg_obfs.idleness import IdleWatch
from awg_obfs.limits import Limits
from awg_obfs.policy import Policy
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.messages import Buffer
from awg_obfs.protocol.noise import NO_PRESHARED_KEY
from awg_obfs.protocol.parameters import DEFAULT, Parameters
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.sizes import QUIC_SMALLEST, quic_datagram_size
from awg_obfs.protocol.tunnel_wire import CloseCode
from awg_obfs.quic.certificate import ServerCertificate, generate_certificate
from awg_obfs.quic.driver import QuicConnection, open_quic
from awg_obfs.quic.engine import Role
from awg_obfs.quic.engines import settings_after
from awg_obfs.quic.errors import ConnectionLostError
from awg_obfs.quic.headers import begins_connection, forgotten_notice
from awg_obfs.quic.settings import QuicSettings
from awg_obfs.serving import ClientService, Services

# Datagrams of a client that wait for its connection to be made here, which takes a turn of the scheduler.
MAX_BACKLOG = 64

UNKNOWN = "the server does not let this client in any more"

# Streams that a client may have open beyond its limit: enough to tell it of the limit.
SPARE_STREAMS = 64


@attrs.frozen(kw_only=True)
class ServerPeer:
    """Who may come in. *last_timestamp* is the stamp of its newest handshake, as `events.HandshakeAnswered` says."""

    name: str
    public_key: bytes
    preshared_key: bytes = attrs.field(default=NO_PRESHARED_KEY, repr=False)
    last_timestamp: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen(kw_only=True)
class ServerSettings:
    """A whole server.

    Attributes:
      listen: Where peers come in, on UDP; port 0 is any free one.
      private_key: Ours, 32 bytes.
      parameters: How the datagrams look.
      peers: Who may come in.
      policy: Where they may go.
      limits: How much of everything.
      keepalive_padding: See `DeviceSettings`.
      mtu: Of the paths to the peers.
      quic: Limits and intervals of the peers' connections.

    """

    listen: Address
    private_key: bytes = attrs.field(repr=False)
    parameters: Parameters = DEFAULT
    peers: Sequence[ServerPeer] = ()
    policy: Policy = attrs.field(factory=Policy)
    limits: Limits = attrs.field(factory=Limits)
    keepalive_padding: bool = False
    mtu: int = ETHERNET_MTU
    quic: QuicSettings = attrs.field(factory=QuicSettings)


@attrs.frozen(kw_only=True)
class SessionStatistics:
    """A peer that is connected. *since* is on Trio's clock; bytes are those of UDP's payloads since the start."""

    peer: str
    address: Address | None
    since: float
    streams: int
    sent: int
    received: int
    round_trip: float | None


@attrs.define(eq=False)
class _Session:
    """One connection of a peer. The datagrams that begin it are kept until it can take them."""

    began: float
    connection: QuicConnection | None = None
    service: ClientService | None = None
    since: float = 0.0
    dropped: bool = False
    """Whether its peer may not come in any more."""
    _backlog: list[Buffer] = attrs.field(factory=list[Buffer])

    def received(self, datagrams: Sequence[Buffer]) -> None:
        """Take what comes for this connection."""
        if self.connection is not None:
            self.connection.received(datagrams)
        elif len(self._backlog) + len(datagrams) <= MAX_BACKLOG:
            self._backlog += datagrams

    def attach(self, connection: QuicConnection) -> None:
        """Have *connection* take what has come, and what comes."""
        self.connection = connection
        connection.received(self._backlog)
        self._backlog.clear()

    def count_ours(self, datagrams: Sequence[Buffer]) -> int:
        """Return how many of *datagrams* come before this connection is over, or the client begins another."""
        connection = self.connection
        if connection is None:
            return len(datagrams)
        if connection.failure is not None:
            return 0
        for count, datagram in enumerate(datagrams):
            if begins_connection(datagram) and connection.is_replaced_by(datagram):
                return count
        return len(datagrams)


class TunnelServer:
    """A running server, as `serve_tunnels` hands it out."""

    def __init__(
        self, settings: ServerSettings, on_event: Callable[[TunnelEvent], None], nursery: trio.Nursery
    ) -> None:
        self._settings = settings
        self._on_event = on_event
        self._nursery = nursery
        self._certificate: ServerCertificate = generate_certificate()
        self._quic = attrs.evolve(settings.quic, streams=settings.limits.streams + SPARE_STREAMS)
        self._quic_of: dict[Peer, QuicSettings] = {}
        self._sessions: dict[Peer, _Session] = {}
        self._services = Services(
            destinations=Destinations(settings.policy),
            limits=settings.limits,
            idle=IdleWatch(settings.limits.idle),
            on_event=on_event,
        )
        self._device = make_device(
            settings.private_key, settings.parameters, keepalive_padding=settings.keepalive_padding
        )
        # By public key.
        self._peers: dict[bytes, tuple[ServerPeer, Peer]] = {}
        for peer in settings.peers:
            self._add(peer)
        self._endpoint: Endpoint | None = None

    @property
    def address(self) -> Address:
        """Where peers come in."""
        return self._running.address

    @property
    def rejections(self) -> Counter[Rejection]:
        """How many datagrams were not let in, by reason."""
        return self._device.rejections

    def sessions(self) -> tuple[SessionStatistics, ...]:
        """Return the peers that are connected."""
        return tuple(
            SessionStatistics(
                peer=peer.name,
                address=peer.endpoint,
                since=session.since,
                streams=session.service.streams,
                sent=peer.tx_bytes,
                received=peer.rx_bytes,
                round_trip=session.connection.statistics().round_trip or None,
            )
            for peer, session in self._sessions.items()
            if session.service is not None and session.connection is not None
        )

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Listen, and serve who comes, while the block lasts."""
        async with open_endpoint(
            self._device, self._settings.listen, self._received, self._on_event, server=True
        ) as self._endpoint:
            self._nursery.start_soon(self._services.idle.run)
            try:
                yield
            finally:
                self._end_sessions()

    def change_peers(self, peers: Sequence[ServerPeer]) -> None:
        """Let these *peers* in from now on, and nobody else. Who is among them with the same keys and name stays.

        Raises:
          NoiseError, ValueError: a key is none, or not of one peer alone; then some may have been let in already.

        """
        wanted = {peer.public_key: peer for peer in peers}
        for key, (known, _) in list(self._peers.items()):
            new = wanted.get(key)
            if new is None or (new.name, new.preshared_key) != (known.name, known.preshared_key):
                self._remove(key)
        for peer in peers:
            if peer.public_key not in self._peers:
                self._add(peer)

    async def drain(self) -> None:
        """Accept nothing new, and wait until what is open is over, or time is up."""
        self._services.draining.set()
        with trio.move_on_after(self._settings.limits.drain):
            await self._services.activity.wait_none()

    @property
    def _running(self) -> Endpoint:
        assert self._endpoint is not None, "a server is handed out once it listens"
        return self._endpoint

    def _add(self, peer: ServerPeer) -> None:
        self._peers[peer.public_key] = (
            peer,
            self._device.add_peer(
                peer.public_key, peer.preshared_key, last_timestamp=peer.last_timestamp, name=peer.name
            ),
        )

    def _remove(self, key: bytes) -> None:
        _, peer = self._peers.pop(key)
        session = self._sessions.get(peer)
        if session is not None:
            session.dropped = True
            if session.connection is not None:
                session.connection.close(CloseCode.STOPPING, UNKNOWN)
        self._quic_of.pop(peer, None)
        self._running.remove(peer)

    def _end_sessions(self) -> None:
        for session in self._sessions.values():
            if session.connection is not None:
                session.connection.close(CloseCode.STOPPING, "the server is stopping")

    def _received(self, peer: Peer, datagrams: Sequence[Buffer]) -> None:
        """Hand what *peer* sent to its connection, which this may be the beginning of."""
        session = self._sessions.get(peer)
        if session is not None:
            ours = session.count_ours(datagrams)
            if ours:
                session.received(datagrams[:ours])
            datagrams = datagrams[ours:]
            if not datagrams:
                return
        # What is late of another connection may come first.
        begin = next((at for at, each in enumerate(datagrams) if begins_connection(each)), None)
        if begin is not None:
            if not self._services.draining.is_set():
                self._begin(peer, datagrams[begin:])
        else:
            notice = forgotten_notice(datagrams[0])
            if notice is not None:
                self._running.send(peer, [notice])

    def _begin(self, peer: Peer, datagrams: Sequence[Buffer]) -> None:
        last = self._sessions.get(peer)
        if last is not None and last.connection is not None:
            last.connection.close(CloseCode.DONE, "the client has begun another connection")
        session = self._sessions[peer] = _Session(trio.current_time())
        session.received(datagrams)
        self._nursery.start_soon(self._serve, peer, session)

    async def _serve(self, peer: Peer, session: _Session) -> None:
        if session.dropped:
            self._sessions.pop(peer, None)
            return
        path = self._running.path(peer, path_mtu=self._settings.mtu)
        settings = self._quic_of.get(peer, self._quic)
        reason = ""
        async with open_quic(
            Role.SERVER, path, settings=settings, certificate=self._certificate
        ) as connection:
            session.attach(connection)
            try:
                await self._serve_connection(peer, session, connection)
            except ConnectionLostError as exc:
                reason = str(exc.failure)
                if not session.dropped:
                    self._quic_of[peer] = settings_after(exc.failure, settings)
            finally:
                if self._sessions.get(peer) is session:
                    del self._sessions[peer]
                if session.service is not None:
                    self._on_event(SessionDown(peer, reason or "the server is stopping"))

    async def _serve_connection(self, peer: Peer, session: _Session, connection: QuicConnection) -> None:
        limits = self._settings.limits
        with trio.move_on_after(limits.handshake) as patience:
            await connection.wait_ready()
        if patience.cancelled_caught:
            connection.close(CloseCode.HANDSHAKE, f"no handshake within {limits.handshake:g} s")
            return
        if sum(each.service is not None for each in self._sessions.values()) >= limits.sessions:
            connection.close(CloseCode.SESSIONS, f"the server allows {limits.sessions} clients at a time")
            return
        service = ClientService(peer, connection, self._services)
        session.service, session.since = service, trio.current_time()
        assert peer.endpoint is not None, "it was heard"
        self._on_event(SessionUp(peer, peer.endpoint, session.since - session.began))
        await service.run()


async def serve_tunnels(
    settings: ServerSettings,
    on_event: Callable[[TunnelEvent], None] = lambda _event: None,
    *,
    stop: trio.Event | None = None,
    task_status: trio.TaskStatus[TunnelServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, or, after *stop*, until open connections are over or `Limits.drain` has passed.

    Args:
      settings: Who may come in, and where they may go.
      on_event: Called with what happens. Must not block.
      stop: Set it to have the server accept nothing new, and end.
      task_status: Told the `TunnelServer` once it listens.

    Raises:
      BindError: the system does not let us listen there.
      NarrowPathError: datagrams from there leave QUIC too little room.
      NoiseError: the public key of a peer is none.
      ValueError: two peers have one public key, or a key has not 32 bytes.

    """
    _check_room(settings)
    async with open_background() as nursery:
        server = TunnelServer(settings, on_event, nursery)
        async with server.open():
            task_status.started(server)
            await (trio.Event() if stop is None else stop).wait()
            await server.drain()


def _check_room(settings: ServerSettings) -> None:
    """Raise `NarrowPathError` where no peer could ever be served: that must not wait for the first one."""
    s4, ipv6 = settings.parameters.s4, is_ipv6(settings.listen)
    size = quic_datagram_size(settings.mtu, s4, ipv6=ipv6)
    if size < QUIC_SMALLEST:
        raise NarrowPathError(
            f"over {'IPv6' if ipv6 else 'IPv4'}, mtu {settings.mtu} and s4 {s4} leave QUIC {size} bytes of the "
            f"{QUIC_SMALLEST} that it needs; lower s4, or raise mtu"
        )

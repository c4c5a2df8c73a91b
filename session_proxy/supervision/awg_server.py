"""The daemon of ``sproxy awg-server``: peers come in by AmneziaWG sessions, and go where the policy allows."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import attrs
import trio

from awg_obfs.addresses import shown
from awg_obfs.errors import BindError, NarrowPathError
from awg_obfs.events import (
    AssociationClosed,
    CookieSent,
    DatagramRejected,
    HandshakeAnswered,
    HandshakeCompleted,
    PathTooNarrow,
    PeerMoved,
    Rebound,
    Rejection,
    SendingFailed,
    StreamClosed,
    StreamOutcome,
    TunnelEvent,
    UnderLoad,
)
from awg_obfs.limits import Limits
from awg_obfs.policy import Policy
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.keys import key_from_text, public_key_of
from awg_obfs.protocol.noise import NO_PRESHARED_KEY
from awg_obfs.protocol.peers import Peer
from awg_obfs.server import ServerPeer, ServerSettings, SessionStatistics, TunnelServer, serve_tunnels
from session_proxy.errors import ListenError, ProfileError, ReloadError, TransportDownError
from session_proxy.events import AwgHappened, ConnectionClosed, Event, Listening, UdpAssociationClosed
from session_proxy.observability.http import Handler
from session_proxy.observability.logging import EventLog, Log
from session_proxy.observability.metrics import Metrics
from session_proxy.outbound.awg_figures import AwgFigures, Quantiles, SessionFigures
from session_proxy.policy.rules import DIRECT
from session_proxy.profile.awg_model import AwgPeer, AwgServer
from session_proxy.profile.awg_summary import server_summary
from session_proxy.profile.loading import Warn
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision.awg_reload import AwgServerChange, compare_awg_servers
from session_proxy.supervision.handshake_times import HandshakeTimes, StateError
from session_proxy.supervision.peer_moves import PeerMoves
from session_proxy.supervision.reload import read_anew
from session_proxy.supervision.status import AwgServerStatus, PeerStatus, TrafficStatus
from session_proxy.target import InvalidTargetError, Target
from tunnel_relay.background import open_background

# What connections through a server are called where those of a proxy port are called socks5 or http.
PROTOCOL = "awg"

# The far end's own words for what our log has others for.
OUTCOMES = {StreamOutcome.DOWN: TransportDownError.reason}


@attrs.define(eq=False)
class PeerRecord:
    """What is remembered of a peer while the process lives, for its figures."""

    moves: PeerMoves
    latency: Quantiles = attrs.field(factory=Quantiles, init=False)
    seen: Peer | None = attrs.field(default=None, init=False, repr=False)
    """The library's own; its byte counts go on over sessions."""


class AwgServerDaemon:
    """One ``server.toml``, served. Run it with `session_proxy.supervision.service.run_service`.

    *load* reads the file anew; None where there is none.
    """

    def __init__(
        self,
        server: AwgServer,
        log: Log,
        metrics: Metrics,
        load: Callable[[Warn], AwgServer] | None = None,
    ) -> None:
        self.config = server
        self.load = load
        # Told later, when the folder that it was looked up from may be gone.
        self._file = str(server.file.absolute()) if server.file else ""
        self._log = log
        self._metrics = metrics
        self._consumers = (EventLog(log), metrics)
        self._numbers = itertools.count(1)
        # Of all peers that there have been: what they had open may end after they are gone.
        self._records: dict[str, PeerRecord] = {}
        self._remember(server.peers)
        self._total = self._sent = self._received = 0
        self._running: TunnelServer | None = None
        self._times: HandshakeTimes | None = None

    async def serve(self, stop: trio.Event, *, task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
        """Serve peers; return when *stop* was set and their connections are over, or time is up.

        Raises:
          ListenError: the address cannot be listened on.
          ProfileError: the state folder cannot be used.
          StateError: what is in it cannot.

        """
        config = self.config
        self._log.info("starting", file=str(config.file or "-"), **server_summary(config))
        assert config.state is not None, "the composer decides where"
        server_key = public_key_of(key_from_text(config.private_key.reveal()))
        try:
            times = await trio.to_thread.run_sync(
                HandshakeTimes.open, config.state, server_key, abandon_on_cancel=True
            )
        except StateError as exc:
            if exc.problem is None:
                raise
            raise ProfileError(config.file, [exc.problem]) from exc
        self._times = times
        stopped = trio.Event()

        listen = await _look_up(config.listen)
        settings = attrs.evolve(server_settings(config, times), listen=listen)

        async def run(*, task_status: trio.TaskStatus[TunnelServer]) -> None:
            await serve_tunnels(settings, self.happened, stop=stop, task_status=task_status)
            stopped.set()

        try:
            async with open_background() as nursery:
                nursery.start_soon(times.run, self._report_state)
                running: TunnelServer = await nursery.start(run)
                self._running = running
                address = ListenAddress(*running.address)
                self.notify(Listening(str(address)))
                task_status.started([address])
                await stopped.wait()
        except BindError as exc:
            raise ListenError(str(exc)) from exc
        except NarrowPathError as exc:
            # Of an address that is written out, the file's checks have told.
            raise ListenError(f"cannot serve peers at {config.listen}: {exc}") from exc

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncGenerator[AwgServerChange]:
        """See `session_proxy.supervision.reload.Reloadable.prepare`.

        Raises:
          ReloadError: there is nothing to read, or what changed cannot be taken over.
          ProfileError: the file is wrong.

        """
        load = self.load
        if load is None:
            raise ReloadError("it runs without a file to read anew")
        server = await read_anew(load, self._log)
        yield AwgServerChange(self, server, compare_awg_servers(self.config, server))

    def adopt(self, server: AwgServer) -> Sequence[ListenAddress]:
        """Let in whom *server* does: who is gone, or another one now, is parted from."""
        running = self._running
        assert running is not None, "it is ready"
        self.config = server
        self._remember(server.peers)
        running.change_peers(server_peers(server, self._times))
        return [ListenAddress(*running.address)]

    def _remember(self, peers: Sequence[AwgPeer]) -> None:
        for peer in peers:
            if peer.name not in self._records:
                self._records[peer.name] = PeerRecord(PeerMoves(peer.name, self._log))

    def _shown(self) -> dict[str, PeerRecord]:
        return {peer.name: self._records[peer.name] for peer in self.config.peers}

    def notify(self, event: Event) -> None:
        """Tell everybody who counts or logs."""
        for consume in self._consumers:
            consume(event)

    def happened(self, event: TunnelEvent) -> None:
        """Take an event of the library."""
        match event:
            case StreamClosed():
                self._connection_closed(event)
            case AssociationClosed(peer=peer, sent=sent, received=received, dropped=dropped):
                number = next(self._numbers)
                self.notify(UdpAssociationClosed(number, peer.name, sent, received, dropped, event.duration))
            case (
                DatagramRejected()
                | UnderLoad()
                | CookieSent()
                | SendingFailed()
                | PathTooNarrow()
                | Rebound()
            ):
                self.notify(AwgHappened("", event))
            case _:
                self._records[event.peer.name].seen = event.peer
                if isinstance(event, HandshakeAnswered) and self._times is not None:
                    self._times.remember(event.peer.public_key, event.peer.last_timestamp)
                if isinstance(event, PeerMoved):
                    # Whoever has only asked for new keys has still to prove that they are its own.
                    if event.peer.keypairs.next is None:
                        self._found(event.peer, event.new)
                    return
                if isinstance(event, HandshakeCompleted):
                    self._found(event.peer, event.address)
                self.notify(AwgHappened(event.peer.name, event))

    def obstacles(self) -> Mapping[str, str]:
        """Return nothing: who listens serves peers."""
        return {}

    def status(self) -> Mapping[str, object]:
        """Return an `AwgServerStatus` as JSON values."""
        sessions = self._sessions()
        traffic = TrafficStatus(
            open=self.streams(), total=self._total, sent=self._sent, received=self._received
        )
        status = AwgServerStatus(
            file=self._file,
            connections=traffic,
            peers={name: _peer_status(record, sessions.get(name)) for name, record in self._shown().items()},
            rejections={reason.value: number for reason, number in self._rejections().items()},
        )
        return attrs.asdict(status)

    def streams(self) -> int:
        """Return how many connections are open, all peers together."""
        return sum(session.streams for session in self._sessions().values())

    def figures(self) -> AwgFigures:
        """Return the figures of every peer, as they are now."""
        sessions = self._sessions()
        return AwgFigures(
            sessions=tuple(
                _peer_figures(name, record, sessions.get(name)) for name, record in self._shown().items()
            ),
            rejections={reason.value: number for reason, number in self._rejections().items()},
        )

    def pages(self) -> Mapping[tuple[str, str], Handler]:
        """Return nothing: there are health and metrics only."""
        return {}

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics of this server."""
        return self._metrics.render(accept)

    def _sessions(self) -> dict[str, SessionStatistics]:
        return {} if self._running is None else {each.peer: each for each in self._running.sessions()}

    def _rejections(self) -> Mapping[Rejection, int]:
        return {} if self._running is None else self._running.rejections

    def _connection_closed(self, event: StreamClosed) -> None:
        self._total += 1
        self._sent += event.sent
        self._received += event.received
        name = event.peer.name
        if event.connect_duration is not None:
            self._records[name].latency.observe(event.connect_duration)
        self.notify(
            ConnectionClosed(
                id=next(self._numbers),
                client=name,
                protocol=PROTOCOL,
                target=_target(event.host, event.port),
                rule="",
                upstream=DIRECT,
                sent=event.sent,
                received=event.received,
                duration=event.duration,
                connect_duration=event.connect_duration,
                outcome=OUTCOMES.get(event.outcome, event.outcome.value),
                detail=event.detail,
            )
        )

    def _found(self, peer: Peer, address: Address) -> None:
        """Take note that *peer* is at *address*: every move is counted, and the log tells what a person needs."""
        moves = self._records[peer.name].moves
        old = moves.found_at(address, has_session=peer.name in self._sessions())
        if old is not None:
            self._metrics(AwgHappened(peer.name, PeerMoved(peer, old, address)))

    def _report_state(self, problem: str) -> None:
        self._log.warning("state", message=problem)


def server_settings(server: AwgServer, times: HandshakeTimes | None = None) -> ServerSettings:
    """Return what the library needs to know of *server*; *times* are what is remembered of its peers."""
    limits = server.limits
    return ServerSettings(
        listen=(server.listen.host, server.listen.port),
        private_key=key_from_text(server.private_key.reveal()),
        parameters=server.awg,
        peers=server_peers(server, times),
        policy=Policy(allow=server.policy.allow, deny=server.policy.deny),
        limits=Limits(
            sessions=limits.sessions,
            streams=limits.streams,
            associations=limits.associations,
            opens=limits.opens,
            connect=limits.connect,
            handshake=limits.handshake,
            idle=limits.idle,
            drain=limits.drain,
        ),
        keepalive_padding=server.keepalive_padding,
        mtu=server.mtu,
    )


def server_peers(server: AwgServer, times: HandshakeTimes | None = None) -> tuple[ServerPeer, ...]:
    """Return who may come in; see `server_settings`."""

    def stamp(key: bytes) -> bytes:
        return b"" if times is None else times.of(key)

    def peer(config: AwgPeer) -> ServerPeer:
        key, shared = key_from_text(config.public_key.reveal()), config.preshared_key
        return ServerPeer(
            name=config.name,
            public_key=key,
            preshared_key=NO_PRESHARED_KEY if shared is None else key_from_text(shared.reveal()),
            last_timestamp=stamp(key),
        )

    return tuple(map(peer, server.peers))


async def _look_up(listen: ListenAddress) -> Address:
    """Return the address that *listen* stands for; where it is a name of several, the first."""
    try:
        found = await trio.socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        raise ListenError(f"cannot listen on {listen}: the host has no address; write an IP address") from exc
    host, port = found[0][4][:2]
    return str(host), int(port)


def _peer_status(record: PeerRecord, session: SessionStatistics | None) -> PeerStatus:
    peer = record.seen
    address = None if peer is None else peer.endpoint
    return PeerStatus(
        up=session is not None,
        address="" if address is None else shown(address),
        seconds=None if session is None else round(trio.current_time() - session.since, 3),
        streams=0 if session is None else session.streams,
        sent=0 if peer is None else peer.tx_bytes,
        received=0 if peer is None else peer.rx_bytes,
        round_trip=None if session is None else session.round_trip,
    )


def _peer_figures(name: str, record: PeerRecord, session: SessionStatistics | None) -> SessionFigures:
    peer = record.seen
    return SessionFigures(
        link=name,
        up=session is not None,
        streams=0 if session is None else session.streams,
        sent=0 if peer is None else peer.tx_bytes,
        received=0 if peer is None else peer.rx_bytes,
        round_trip=None if session is None else session.round_trip,
        latency=record.latency.values(),
    )


def _target(host: str, port: int) -> Target | None:
    """Return what a client asked for; None where it is no host, which the server has told it."""
    try:
        return Target.of(host, port)
    except InvalidTargetError:
        return None

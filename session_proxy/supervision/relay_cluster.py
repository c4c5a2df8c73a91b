"""What a relay server has to do with the others of its relay, as ``relay.toml`` has it: a store, and links."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from session_proxy.errors import Problem, ProfileError
from session_proxy.inbound.sockets import open_listeners, socket_name
from session_proxy.observability.logging import Log
from session_proxy.observability.relay_log import Context
from session_proxy.profile.relay_model import RelayCluster, RelayServer
from session_proxy.profile.secret import Secret
from session_proxy.supervision.control_socket import open_control_socket
from session_proxy.supervision.relay_files import follow, read_tls
from session_proxy.supervision.relay_worker import Post
from tunnel_relay.background import open_background
from tunnel_relay.server.cluster import PARTING, Cluster
from tunnel_relay.server.peering import UNIX, PeerEvent, PeerLinked, PeerLost, Peers, serve_peer
from tunnel_relay.server.service import RelayService
from tunnel_relay.server.sharing import Sharing
from tunnel_relay.server.store import Store, StoreAwayError


@attrs.frozen(eq=False)
class RelayPeers:
    """A server among others."""

    store: Store
    address: str
    sharing: Sharing
    peers: Peers

    @property
    def links(self) -> int:
        """How many links to other servers there are, for clients that are here."""
        return self.peers.links

    @property
    def trouble(self) -> str:
        """What does not work now; this server goes on without it."""
        return self.store.trouble and f"{self.store.trouble}; this server goes on with what it knows"


@attrs.frozen
class Proofs:
    """How to prove who we are, and whom to believe: to who dials us, and to whom we dial."""

    accepting: ssl.SSLContext
    dialing: ssl.SSLContext


def read_proofs(cluster: RelayCluster) -> Proofs:
    """Return what is in the files.

    Raises:
      OSError: a file cannot be read (`ssl.SSLError` where it makes no sense).

    """
    accepting = read_tls(cluster.certificate, cluster.key)
    accepting.load_verify_locations(cafile=cluster.ca)
    accepting.verify_mode = ssl.CERT_REQUIRED
    # Nobody is believed but the servers' own authority.
    dialing = ssl.create_default_context(cafile=str(cluster.ca))
    dialing.minimum_version = ssl.TLSVersion.TLSv1_3
    dialing.load_cert_chain(cluster.certificate, cluster.key)
    return Proofs(accepting, dialing)


@asynccontextmanager
async def open_relay_peers(
    server: RelayServer, service: RelayService, log: Log, post: Post | None = None
) -> AsyncGenerator[RelayPeers | None]:
    """Join *service* to the other servers of *server* for the length of a block; None where it is alone.

    One that stands at a *post* is a server among others, too; without a cluster, those are on this machine.

    Raises:
      ProfileError: what that needs is not installed.
      ListenError: where the others come in cannot be listened on.
      OSError: so it is with the socket of a post.

    """
    cluster = server.cluster
    if server.store.redis is None or (cluster is None and post is None):
        yield None
        return

    def notify(event: PeerEvent) -> None:
        log_peer(log, event)

    def revoke(tokens: frozenset[str]) -> None:
        service.revoked = tokens

    async with (
        _open_entrance(cluster, post) as entrance,
        _open_store(server, server.store.redis, entrance.address, log) as store,
        open_background() as nursery,
    ):
        peers = Peers(nursery, service.switch, None, notify)
        proofs: list[Proofs] = []

        def prove(read: Proofs) -> None:
            proofs[:], peers.context = [read], read.dialing

        if cluster is not None:
            await nursery.start(
                follow,
                [cluster.certificate, cluster.key, cluster.ca],
                lambda: read_proofs(cluster),
                prove,
                _report(log, "cluster"),
            )

        async def serve(stream: trio.SocketStream) -> None:
            await serve_peer(stream, service.switch, proofs[0].accepting if proofs else None, notify)

        sharing = Sharing(store, service.rates, service.access, revoke)
        sharing.revoke_here(frozenset(service.revoked))
        nursery.start_soon(sharing.run)
        nursery.start_soon(trio.serve_listeners, serve, entrance.listeners)
        found = Cluster(nursery, store, entrance.address, service.switch, peers)
        service.switch.elsewhere, service.stay = found, found.stay
        log.info(
            "cluster",
            message="other servers are served",
            listen=entrance.listen,
            address=entrance.address,
        )
        try:
            yield RelayPeers(store, entrance.address, sharing, peers)
        finally:
            service.switch.elsewhere, service.stay = None, None
            nursery.cancel_scope.cancel()
            with trio.move_on_after(PARTING, shield=True), suppress(StoreAwayError):
                await sharing.leave()


@asynccontextmanager
async def _open_store(server: RelayServer, redis: Secret, address: str, log: Log) -> AsyncGenerator[Store]:
    try:
        from tunnel_relay.server.redis_store import open_redis_store
    except ImportError as exc:
        problem = Problem(
            "store.redis", f"{exc.name or 'coredis'} is not installed", "pip install session-proxy[redis]"
        )
        raise ProfileError(server.file, [problem]) from exc

    def tell(trouble: str) -> None:
        if trouble:
            log.warning("store", message=f"{trouble}; this server goes on with what it knows")
        else:
            log.info("store", message="Redis answers again")

    async with open_redis_store(redis.reveal(), address, prefix=server.store.prefix, tell=tell) as store:
        yield store


@attrs.frozen(eq=False)
class _Entrance:
    """Where the other servers come in, and what they dial."""

    listeners: list[trio.SocketListener]
    listen: str
    address: str


@asynccontextmanager
async def _open_entrance(cluster: RelayCluster | None, post: Post | None) -> AsyncGenerator[_Entrance]:
    if cluster is None:
        assert post is not None, "it is not alone"
        with open_control_socket(post.peers) as listener:
            yield _Entrance([listener], str(post.peers), f"{UNIX}{post.peers}")
        return
    sockets = await open_listeners((cluster.listen,))
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]
    name = socket_name(sockets[0])
    yield _Entrance(listeners, str(name), str(cluster.address or name))


def log_peer(log: Log, event: PeerEvent) -> None:
    """Write the line that *event* deserves."""
    match event:
        case PeerLinked(address=address):
            log.info("peer linked", message="another server is linked", context=Context(peer=address))
        case PeerLost(address=address, reason=reason):
            log.info("peer lost", message=reason, context=Context(peer=address))


def _report(log: Log, event: str) -> Callable[[str], None]:
    return lambda problem: log.warning(event, message=problem)

"""Several servers of one relay, in one process: switches, a store that they share, and links between them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import attrs
import trio

from tests.support.websockets import open_websocket_pair
from tunnel_relay.agent.offering import Offering
from tunnel_relay.background import open_background
from tunnel_relay.client.reaching import Reaching
from tunnel_relay.errors import LinkLostError
from tunnel_relay.link import Link
from tunnel_relay.policy.lease import LENGTH
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.server.cluster import Cluster
from tunnel_relay.server.peering import UNIX, PeerEvent, Peers, serve_peer
from tunnel_relay.server.store import Store
from tunnel_relay.server.switch import Port, Switch

SETTINGS = SessionSettings(window=64_000, kept=256_000, grace=20)


@attrs.define(eq=False)
class Server:
    """One of them; what is linked to it ends with *scope*."""

    switch: Switch
    cluster: Cluster
    told: list[PeerEvent]
    scope: trio.CancelScope

    def kill(self) -> None:
        """Let it die without a word to anybody but the ends of its connections."""
        self.scope.cancel()


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


async def run_server(
    store: Store,
    length: float = LENGTH,
    contexts: Contexts | None = None,
    folder: Path | None = None,
    *,
    task_status: trio.TaskStatus[Server],
) -> None:
    """Run a server; *contexts* are those of its ends that accept and that dial.

    Where there is a *folder*, it takes the others' links at a Unix socket there.
    """
    told: list[PeerEvent] = []
    accepting, dialing = contexts or (None, None)
    with trio.CancelScope() as scope:
        async with open_background() as nursery:
            switch = Switch()
            peers = Peers(nursery, switch, dialing, told.append)
            listener, address = await listen(folder)
            cluster = Cluster(nursery, store, address, switch, peers, length)
            switch.elsewhere = cluster

            async def serve(stream: trio.SocketStream) -> None:
                await serve_peer(stream, switch, accepting, told.append)

            nursery.start_soon(trio.serve_listeners, serve, [listener])
            task_status.started(Server(switch, cluster, told, scope))
            await trio.sleep_forever()


async def listen(folder: Path | None) -> tuple[trio.SocketListener, str]:
    """Return where other servers come in, and what they dial."""
    if folder is None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        return listener, f"127.0.0.1:{listener.socket.getsockname()[1]}"
    path = folder / uuid4().hex
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await sock.bind(str(path))
    sock.listen()
    return trio.SocketListener(sock), f"{UNIX}{path}"


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes."""
    with suppress(trio.BrokenResourceError):
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()


@attrs.define(eq=False)
class End:
    """A client or an agent, and the server that it dials."""

    end: Offering | Reaching
    port: Callable[[Server], Port]
    server: Server
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def move(self, server: Server) -> None:
        """Come by another server, without a word to the one before."""
        self.server = server
        self.scope.cancel()

    async def run(self) -> None:
        """Keep linked."""
        while True:
            server = self.server
            there = self.port(server)
            with trio.CancelScope() as self.scope:
                async with open_websocket_pair() as (near, far), trio.open_nursery() as nursery:
                    distant = there.link = Link(far, there.heed)
                    if there.agent is not None:
                        server.switch.register(there)
                        nursery.start_soon(self._stay, server, there)
                    link = Link(near, self.end.heed)
                    self.end.attach(link)
                    for each in (distant, link):
                        nursery.start_soon(self._carry, each)
            self.end.detach()
            if there.agent is not None:
                server.switch.unregister(there)
            there.lose("the connection is lost")
            await trio.lowlevel.checkpoint()

    async def _stay(self, server: Server, there: Port) -> None:
        await server.cluster.stay(there)
        self.scope.cancel()

    @staticmethod
    async def _carry(link: Link) -> None:
        with suppress(LinkLostError):
            await link.run()


@attrs.define(eq=False)
class ClusterWorld:
    """Servers, an agent of alice's with an echo service, and a client of hers."""

    nursery: trio.Nursery
    servers: list[Server]
    agent: End
    client: End

    @property
    def reaching(self) -> Reaching:
        assert isinstance(self.client.end, Reaching)
        return self.client.end

    async def exchange(self, data: bytes) -> bytes:
        """Send *data* to the echo service, and return what comes back."""
        stream = self.reaching.open_stream("echo")
        await stream.wait_accepted()
        received = bytearray()
        async with stream, trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            nursery.start_soon(send)
            while piece := await stream.receive_some():
                received += piece
        return bytes(received)


@asynccontextmanager
async def open_cluster_world(
    stores: list[Store],
    *,
    user: str = "alice",
    name: str = "nas",
    length: float = LENGTH,
    contexts: Contexts | None = None,
    folder: Path | None = None,
) -> AsyncGenerator[ClusterWorld]:
    """Run a server for each of *stores*; the agent is at the first one, the client at the last one."""
    async with open_background() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        host, port = listener.socket.getsockname()
        servers = [
            await nursery.start(partial(run_server, store, length, contexts, folder)) for store in stores
        ]
        offering = Offering(nursery, {"echo": (host, port)}, "one", SETTINGS)
        reaching = Reaching(nursery, name, SETTINGS)
        agent = End(offering, lambda at: Port(at.switch, "alice", agent="nas", instance="one"), servers[0])
        client = End(reaching, lambda at: Port(at.switch, user), servers[-1])
        for end in (agent, client):
            nursery.start_soon(end.run)
        yield ClusterWorld(nursery, servers, agent, client)
        nursery.cancel_scope.cancel()

"""A tunnel: a server and a client of awg_obfs over UDP on loopback, and destinations behind the server."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import attrs
import trio

from awg_obfs.background import open_background
from awg_obfs.client import Tunnel, TunnelSettings, open_tunnel
from awg_obfs.events import HandshakeAnswered, TunnelEvent
from awg_obfs.limits import Limits
from awg_obfs.policy import Policy, networks
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.keys import new_preshared_key, new_private_key, public_key_of
from awg_obfs.protocol.presets import random_parameters, server_side
from awg_obfs.quic.settings import QuicSettings
from awg_obfs.server import ServerPeer, ServerSettings, TunnelServer, serve_tunnels
from tests.support.udp_relay import UdpRelay, open_udp_relay

LOOPBACK = ("127.0.0.1", 0)

# Tests ask for destinations on this machine; all but one address of it.
FORBIDDEN = "127.6.6.6"
LENIENT = Policy(deny=networks(f"{FORBIDDEN}/32"))

Told = TypeVar("Told", bound=TunnelEvent)
Handler = Callable[[trio.SocketStream], Awaitable[None]]


@attrs.define(eq=False)
class Diary:
    """Keeps what an end of a tunnel tells."""

    events: list[TunnelEvent] = attrs.field(factory=list[TunnelEvent])
    _came: trio.Event = attrs.field(factory=trio.Event)

    def write(self, event: TunnelEvent) -> None:
        self.events.append(event)
        self._came.set()
        self._came = trio.Event()

    def told(self, kind: type[Told]) -> list[Told]:
        """Return the events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_for(self, kind: type[Told], count: int = 1) -> list[Told]:
        """Wait until there are *count* events of one kind."""
        while len(found := self.told(kind)) < count:
            await self._came.wait()
        return found


async def echo(stream: trio.SocketStream) -> None:
    """Send everything back, and the end after it."""
    try:
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()
    except trio.BrokenResourceError:
        pass


@asynccontextmanager
async def open_destination(handler: Handler = echo, host: str = "127.0.0.1") -> AsyncGenerator[int]:
    """Serve TCP for the block; yields the port."""
    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host=host))
        yield int(listeners[0].socket.getsockname()[1])


@asynccontextmanager
async def open_udp_echo(host: str = "127.0.0.1") -> AsyncGenerator[Address]:
    """Send UDP datagrams back for the block."""

    async def answer() -> None:
        while True:
            data, source = await sock.recvfrom(65536)
            await sock.sendto(data, source)

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        await sock.bind((host, 0))
        async with open_background() as nursery:
            nursery.start_soon(answer)
            yield host, int(sock.getsockname()[1])


@attrs.define(eq=False)
class RunningServer:
    """A server that can be stopped, and started again at the same place with what it remembers."""

    settings: ServerSettings
    nursery: trio.Nursery
    diary: Diary = attrs.field(factory=Diary)
    handle: TunnelServer = attrs.field(init=False)
    stop: trio.Event = attrs.field(factory=trio.Event)
    over: trio.Event = attrs.field(factory=trio.Event)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def start(self) -> None:
        self.stop, self.over, self._scope = trio.Event(), trio.Event(), trio.CancelScope()
        self.handle = await self.nursery.start(self._run)
        self.settings = attrs.evolve(self.settings, listen=self.handle.address)

    async def kill(self) -> None:
        """End it; what it remembers of its peers is what it was told to keep."""
        self._scope.cancel()
        await self.over.wait()
        stamps = {each.peer.name: each.peer.last_timestamp for each in self.diary.told(HandshakeAnswered)}
        peers = [
            attrs.evolve(peer, last_timestamp=stamps.get(peer.name, b"")) for peer in self.settings.peers
        ]
        self.settings = attrs.evolve(self.settings, peers=peers)

    async def _run(self, task_status: trio.TaskStatus[TunnelServer]) -> None:
        with self._scope:
            await serve_tunnels(self.settings, self.diary.write, stop=self.stop, task_status=task_status)
        self.over.set()


@attrs.define(eq=False)
class TunnelWorld:
    """A server, a client, and the network between them."""

    server: RunningServer
    client: TunnelSettings
    relay: UdpRelay
    nursery: trio.Nursery
    at_client: Diary = attrs.field(factory=Diary)

    @asynccontextmanager
    async def open_tunnel(self, *, ready: bool = True) -> AsyncGenerator[Tunnel]:
        """Run the client for the block; it works when the block begins, unless it need not be *ready*."""
        async with open_tunnel(self.client, self.at_client.write) as tunnel:
            if ready:
                await tunnel.wait_ready()
            yield tunnel


@asynccontextmanager
async def open_tunnel_world(
    *,
    limits: Limits | None = None,
    policy: Policy = LENIENT,
    quic: QuicSettings | None = None,
    patience: float = 12.0,
    mtu: int = 1500,
    seed: int = 1,
) -> AsyncGenerator[TunnelWorld]:
    """Run a server, and a network to it, for the block."""
    keys = [new_private_key(os.urandom) for _ in range(2)]
    shared = new_preshared_key(os.urandom)
    parameters = random_parameters(random.Random(seed).randbytes)
    server = ServerSettings(
        listen=LOOPBACK,
        private_key=keys[0],
        parameters=server_side(parameters),
        peers=[ServerPeer(name="laptop", public_key=public_key_of(keys[1]), preshared_key=shared)],
        policy=policy,
        limits=limits or Limits(),
        keepalive_padding=True,
        mtu=mtu,
        quic=quic or QuicSettings(),
    )
    async with open_background() as nursery:
        running = RunningServer(server, nursery)
        await running.start()
        async with open_udp_relay(running.handle.address, seed=seed) as relay:
            client = TunnelSettings(
                server=relay.address,
                private_key=keys[1],
                public_key=public_key_of(keys[0]),
                preshared_key=shared,
                parameters=parameters,
                keepalive_padding=True,
                patience=patience,
                mtu=mtu,
                quic=quic or QuicSettings(),
            )
            yield TunnelWorld(running, client, relay, nursery)


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Return everything up to the end."""
    received = bytearray()
    async for data in stream:
        received += data
    return bytes(received)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds; the caller has the deadline."""
    while not condition():  # noqa: ASYNC110  # what is waited for has no events
        await trio.sleep(0.005)

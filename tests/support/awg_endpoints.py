"""Two endpoints on loopback with a session between them, in real time."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import attrs
import trio

from awg_obfs.addresses import any_address_like
from awg_obfs.endpoint import Endpoint, open_endpoint
from awg_obfs.events import EndpointEvent
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.device import Device, DeviceSettings
from awg_obfs.protocol.messages import Buffer
from awg_obfs.protocol.noise import PrivateKey
from awg_obfs.protocol.parameters import DEFAULT, Parameters
from awg_obfs.protocol.peers import Peer

LOOPBACK: Address = ("127.0.0.1", 0)

Told = TypeVar("Told", bound=EndpointEvent)


@attrs.define(eq=False)
class Listener:
    """Keeps what an endpoint says."""

    messages: list[bytes] = attrs.field(factory=list[bytes])
    events: list[EndpointEvent] = attrs.field(factory=list[EndpointEvent])
    peers: list[Peer] = attrs.field(factory=list[Peer])
    _came: trio.Event = attrs.field(factory=trio.Event)

    def receive(self, peer: Peer, plaintexts: Sequence[Buffer]) -> None:
        self.messages += map(bytes, plaintexts)
        self.peers.append(peer)
        self.wake()

    def on_event(self, event: EndpointEvent) -> None:
        self.events.append(event)
        self.wake()

    def wake(self) -> None:
        self._came.set()
        self._came = trio.Event()

    def told(self, kind: type[Told]) -> list[Told]:
        """Return the events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until *condition* holds after something came."""
        while not condition():
            await self._came.wait()

    async def wait_for(self, count: int) -> list[bytes]:
        """Wait until *count* messages have come, and return all."""
        await self.wait_until(lambda: len(self.messages) >= count)
        return self.messages


def make_device(
    identity: PrivateKey, parameters: Parameters = DEFAULT, settings: DeviceSettings | None = None
) -> Device:
    """Return a device on Trio's clock."""
    return Device(
        identity,
        parameters,
        settings or DeviceSettings(leading_fill=True, keepalive_padding=True),
        random.randbytes,
        time.time_ns,
        trio.current_time(),
    )


@attrs.define(eq=False)
class Pair:
    """A client that knows its server, and the server."""

    client: Endpoint
    server: Endpoint
    to_server: Peer
    to_client: Peer
    at_client: Listener
    at_server: Listener

    async def meet(self) -> None:
        """Have a session."""
        before = len(self.at_server.messages)
        self.client.send(self.to_server, [b"hello"])
        await self.at_server.wait_for(before + 1)


@asynccontextmanager
async def open_pair(
    *,
    server: Address = LOOPBACK,
    client: Address | None = None,
    parameters: Parameters = DEFAULT,
    via: Callable[[Address], Address] = lambda address: address,
    offload: bool = True,
) -> AsyncGenerator[Pair]:
    """Two endpoints; the client sends to what *via* makes of the server's address."""
    identities = PrivateKey(random.randbytes(32)), PrivateKey(random.randbytes(32))
    devices = [make_device(identity, parameters) for identity in identities]
    at_client, at_server = Listener(), Listener()
    async with open_endpoint(
        devices[1], server, at_server.receive, at_server.on_event, server=True, offload=offload
    ) as serving:
        target = via(serving.address)
        async with open_endpoint(
            devices[0],
            client or any_address_like(target),
            at_client.receive,
            at_client.on_event,
            offload=offload,
        ) as using:
            to_server = devices[0].add_peer(identities[1].public, endpoint=target, name="server")
            to_client = devices[1].add_peer(identities[0].public, name="client")
            yield Pair(using, serving, to_server, to_client, at_client, at_server)

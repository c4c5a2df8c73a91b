"""A front door on a loopback port, with a dialer that does what a test says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import attrs
import trio

from session_proxy.errors import DialError
from session_proxy.events import ConnectionClosed, Event
from session_proxy.inbound.departures import open_departures
from session_proxy.inbound.front_door import Dialer, FrontDoor
from session_proxy.inbound.listener import serve_front_door
from session_proxy.inbound.relaying import open_relays
from session_proxy.outbound.direct import DirectTransport
from session_proxy.outbound.failover import Connected
from session_proxy.outbound.transport import EarlyBytes, Transport
from session_proxy.policy.rules import DIRECT, Decision
from session_proxy.profile.model import Auth, Limits, ListenAddress
from session_proxy.profile.secret import Secret
from session_proxy.target import Target
from tests.support.sockets import LOOPBACK
from tunnel_relay.background import open_background

E = TypeVar("E", bound=Event)

AUTH = Auth(user="user", password=Secret("literal", "", "secret"))

# Nothing here takes long; a test that waits for more hangs.
PATIENCE = 10.0


@attrs.define(eq=False)
class FakeDialer:
    """Connects directly, except where *answers* has a stream or an error for the target.

    *upstreams* is what it decides for any target, *waits* how long each connection takes. Where it *takes_early*
    bytes, they are sent before anybody learns of the connection.
    """

    answers: dict[Target, trio.abc.Stream | DialError] = attrs.field(
        factory=dict[Target, trio.abc.Stream | DialError]
    )
    transports: Mapping[str, Transport] = attrs.field(factory=lambda: {DIRECT: DirectTransport()})
    upstreams: tuple[str, ...] = (DIRECT,)
    waits: float = 0.0
    takes_early: bool = False
    ahead: bytes = b""
    asked: list[Target] = attrs.field(factory=list[Target])

    async def decide(self, target: Target) -> Decision:
        return Decision("routes[0]", self.upstreams)

    async def connect(self, target: Target, decision: Decision, early: EarlyBytes | None = None) -> Connected:
        self.asked.append(target)
        await trio.sleep(self.waits)
        answer = self.answers.get(target)
        if isinstance(answer, DialError):
            raise answer
        if answer is None:
            answer = await self.transports[DIRECT].connect_tcp(target)
        if early is not None and self.takes_early:
            early.sent = True
            self.ahead += early.data
            await answer.send_all(early.data)
        return Connected(decision.upstreams[0], answer)


@attrs.define(eq=False)
class Events:
    """What was told, in order."""

    told: list[Event] = attrs.field(factory=list[Event])
    _news: trio.Event = attrs.field(factory=trio.Event)

    def __call__(self, event: Event) -> None:
        self.told.append(event)
        self._news.set()
        self._news = trio.Event()

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one *kind*."""
        return [event for event in self.told if isinstance(event, kind)]

    async def closed(self, count: int = 1) -> ConnectionClosed:
        """Wait until *count* connections have ended; return how the last one did."""
        with trio.fail_after(PATIENCE):
            while len(self.of(ConnectionClosed)) < count:
                await self._news.wait()
        return self.of(ConnectionClosed)[count - 1]


@attrs.frozen
class Open:
    """A front door that listens on *addresses*."""

    addresses: list[ListenAddress]
    events: Events
    stop: trio.Event
    done: trio.Event

    @property
    def port(self) -> int:
        return self.addresses[0].port

    @property
    def url(self) -> str:
        return str(self.addresses[0])

    async def connect(self) -> trio.SocketStream:
        """Return a connection to it."""
        return await trio.open_tcp_stream(self.addresses[0].host, self.port)


@asynccontextmanager
async def open_door(
    dialer: Dialer | None = None,
    *,
    auth: Auth | None = None,
    limits: Limits | None = None,
    hosts: tuple[str, ...] = (LOOPBACK,),
) -> AsyncGenerator[Open]:
    """Serve clients for the block."""
    events, stop, done = Events(), trio.Event(), trio.Event()

    async def serve(*, task_status: trio.TaskStatus[list[ListenAddress]]) -> None:
        await serve_front_door(
            dialer or FakeDialer(),
            [ListenAddress(host, 0) for host in hosts],
            auth=auth,
            limits=limits or Limits(),
            notify=events,
            stop=stop,
            task_status=task_status,
        )
        done.set()

    with trio.fail_after(60):
        async with open_background() as nursery:
            addresses = await nursery.start(partial(serve))
            yield Open(addresses, events, stop, done)


@asynccontextmanager
async def open_inner_door(
    dialer: Dialer | None = None, *, auth: Auth | None = None, limits: Limits | None = None
) -> AsyncGenerator[tuple[FrontDoor, Events]]:
    """What a client's handler gets, without a listener."""
    events, limits = Events(), limits or Limits()
    async with open_relays(idle=limits.idle) as relays, open_departures() as departures:
        yield FrontDoor(dialer or FakeDialer(), auth, limits, events, relays, departures), events

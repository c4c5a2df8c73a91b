"""Transports that do what a test says."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio
import trio.testing

from session_proxy.errors import DialError, TransportDownError, UdpUnsupportedError
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.transport import DatagramAssociation, EarlyBytes, Health, HealthState, Services
from session_proxy.profile.model import Upstream
from session_proxy.target import Target


@attrs.define(eq=False)
class FakeTransport:
    """Answers each connection with the next of *answers*: a stream, an error, or a wait in seconds.

    It is as a test says (`become`), and counts who would like to use it; *carried* is how many streams it claims.
    """

    answers: list[DialError | float] = attrs.field(factory=list[DialError | float])
    state: HealthState = HealthState.READY
    reason: str = ""
    asked: list[Target] = attrs.field(factory=list[Target])
    returns: trio.Event = attrs.field(factory=trio.Event)
    changed: trio.Event = attrs.field(factory=trio.Event)
    hopeless: bool = False
    wanted: int = 0
    carried: int = 0

    async def connect_tcp(self, target: Target) -> trio.abc.Stream:
        self.asked.append(target)
        answer = self.answers.pop(0) if self.answers else 0.0
        if isinstance(answer, DialError):
            await trio.lowlevel.checkpoint()
            raise answer
        await trio.sleep(answer)
        return trio.testing.memory_stream_pair()[0]

    async def open_udp(self) -> DatagramAssociation:
        raise UdpUnsupportedError("no")

    async def wait_usable(self) -> None:
        if self.state is not HealthState.DOWN:
            return
        self.wanted += 1
        if self.hopeless:
            raise TransportDownError(self.reason)
        await self.returns.wait()

    async def wait_changed(self) -> None:
        await self.changed.wait()

    def health(self) -> Health:
        return Health(self.state, self.reason)

    def streams(self) -> int:
        return self.carried

    def become(self, state: HealthState, reason: str = "") -> None:
        self.state, self.reason = state, reason
        self.changed.set()
        self.changed = trio.Event()
        if state is not HealthState.DOWN:
            self.returns.set()
            self.returns = trio.Event()


@attrs.define(eq=False)
class FakeEarlyTransport(FakeTransport):
    """Takes early bytes along with each request that it makes; those of *lost* requests may have arrived."""

    lost: bool = False
    waits: float = 0.0
    took: list[bytes] = attrs.field(factory=list[bytes])

    async def connect_tcp_early(self, target: Target, early: EarlyBytes) -> trio.abc.Stream:
        await trio.sleep(self.waits)
        early.sent = True
        try:
            stream = await self.connect_tcp(target)
        except DialError:
            early.sent = self.lost
            raise
        self.took.append(early.data)
        return stream


@attrs.define(eq=False)
class Yard:
    """Opens a `FakeTransport` for any upstream, but not for those that are *faulty*; *setup* takes so many seconds."""

    faulty: set[str] = attrs.field(factory=set[str])
    setup: float = 0.0
    opened: list[FakeTransport] = attrs.field(factory=list[FakeTransport])
    upstreams: list[Upstream] = attrs.field(factory=list[Upstream])
    services: list[Services] = attrs.field(factory=list[Services])
    closed: list[FakeTransport] = attrs.field(factory=list[FakeTransport])
    latest: dict[str, FakeTransport] = attrs.field(factory=dict[str, FakeTransport])

    @asynccontextmanager
    async def open_transport(
        self, name: str, upstream: Upstream, services: Services
    ) -> AsyncGenerator[FakeTransport]:
        """Be `session_proxy.outbound.opening.open_transport`."""
        await trio.sleep(self.setup)
        if name in self.faulty:
            raise LinkFailedError(f"{name} is broken")
        transport = FakeTransport()
        self.opened.append(transport)
        self.latest[name] = transport
        self.upstreams.append(upstream)
        self.services.append(services)
        try:
            yield transport
        finally:
            self.closed.append(transport)

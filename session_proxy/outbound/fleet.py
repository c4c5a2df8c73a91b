"""The upstreams of a profile, each open as a task of its own; they may be exchanged while connections go on.

A change has two steps: `Fleet.stage` opens what is new, and may fail; `Fleet.commit` lets new connections go there, and
cannot. What has left carries the connections that it has until the last one is over, and is closed then.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Collection, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from session_proxy.errors import SessionProxyError, UpstreamStartError
from session_proxy.events import Event, LinksChanged, Notice, UpstreamDown, UpstreamUp
from session_proxy.outbound.direct import DirectTransport
from session_proxy.outbound.lookout import Lookout
from session_proxy.outbound.opening import open_transport
from session_proxy.outbound.successor import Successor
from session_proxy.outbound.transport import Services, Transport
from session_proxy.policy.rules import DIRECT
from session_proxy.profile.model import AwgUpstream, Upstream
from tunnel_relay.background import open_background

# Seconds between two looks whether the last connection through an upstream that has left is over.
LOOK = 0.25

# Upstreams that have left and still carry connections. Beyond that (as many changes, each with connections that go on)
# the oldest is closed.
MOST_LEAVING = 32


def identity_of(upstream: Upstream) -> Hashable:
    """Return what may be in use once at a time only; `None` where nothing is."""
    if isinstance(upstream, AwgUpstream):
        return upstream.private_key.reveal(), upstream.public_key.reveal()
    return None


@attrs.define(eq=False)
class Berth:
    """One upstream that is open, or being opened, until *scope* is cancelled."""

    name: str
    upstream: Upstream
    rivals: Sequence[Berth] = ()
    """They have its identity, and have to be closed before it is opened."""
    transport: Transport | None = attrs.field(default=None, init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    watching: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    taken: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when new connections may go there."""
    closed: trio.Event = attrs.field(factory=trio.Event, init=False)
    is_leaving: bool = attrs.field(default=False, init=False)
    links: int = attrs.field(default=0, init=False)
    """How many connections it holds itself, as it has told."""
    until: float = attrs.field(default=math.inf, init=False)
    """When one that leaves is closed, whatever it carries."""


@attrs.define(eq=False)
class Fleet:
    """Made by `open_fleet`. *on_change* is called when there are other transports."""

    _services: Services
    _lookout: Lookout
    _nursery: trio.Nursery
    on_change: Callable[[Mapping[str, Transport]], None] = attrs.field(default=lambda _: None, init=False)
    _direct: DirectTransport = attrs.field(init=False)
    _berths: dict[str, Berth] = attrs.field(factory=dict[str, Berth], init=False)
    _leaving: list[Berth] = attrs.field(factory=list[Berth], init=False)

    def __attrs_post_init__(self) -> None:
        self._direct = DirectTransport(self._services)

    @property
    def transports(self) -> dict[str, Transport]:
        """What new connections may go through, by name; ``direct`` is there always."""
        transports: dict[str, Transport] = {DIRECT: self._direct}
        for name, berth in self._berths.items():
            assert berth.transport is not None, "it is taken"
            transports[name] = berth.transport
        return transports

    @property
    def leaving(self) -> int:
        """How many upstreams carry on only because of the connections that they have."""
        return len(self._leaving)

    async def stage(self, upstreams: Mapping[str, Upstream], leaving: Collection[str] = ()) -> list[Berth]:
        """Open *upstreams* at the same time, and return when all that are required work.

        One whose identity is that of an upstream in *leaving*, or of one that has left, is opened when that is closed.
        Raises, or is cancelled, with nothing of it left open.

        Raises:
          UpstreamStartError: a required one does not work; the first to fail ends the start.

        """
        going = [*self._leaving, *(self._berths[name] for name in leaving)]
        berths = [Berth(name, upstream, _rivals(upstream, going)) for name, upstream in upstreams.items()]
        failures: list[UpstreamStartError] = []
        try:
            async with trio.open_nursery() as starting:

                async def start(berth: Berth) -> None:
                    failure = await self._nursery.start(self._succeed if berth.rivals else self._hold, berth)
                    if failure is not None:
                        failures.append(failure)
                        starting.cancel_scope.cancel()

                for berth in berths:
                    starting.start_soon(start, berth)
        except BaseException:
            self.discard(berths)
            raise
        if failures:
            self.discard(berths)
            raise failures[0]
        return berths

    def discard(self, berths: Sequence[Berth]) -> None:
        """Close what was staged and is not wanted after all."""
        for berth in berths:
            berth.scope.cancel()

    def commit(self, berths: Sequence[Berth], names: Sequence[str], *, drain: float) -> None:
        """Let new connections go to *names*, in this order, of which *berths* are new; the others leave.

        Where another one waits for its identity, one that leaves has *drain* seconds for its connections.
        """
        new = {berth.name: berth for berth in berths}
        rivals = {rival for berth in berths for rival in berth.rivals}
        before = self._berths
        self._berths = {name: new.get(name) or before[name] for name in names}
        for name, berth in before.items():
            if self._berths.get(name) is not berth:
                self._leave(berth)
        for rival in rivals:
            rival.until = min(rival.until, trio.current_time() + drain)
        for berth in berths:
            berth.taken.set()
            if berth.name in before:
                self._services.notify(LinksChanged(berth.name, berth.links))
        self.on_change(self.transports)

    async def _hold(self, berth: Berth, *, task_status: trio.TaskStatus[UpstreamStartError | None]) -> None:
        """Keep the upstream of *berth* open until its scope is cancelled; starts with why it cannot be."""
        name = berth.name
        services = attrs.evolve(self._services, notify=partial(self._tell, berth))
        try:
            with berth.scope:
                async with open_transport(name, berth.upstream, services) as transport:
                    berth.transport = transport
                    task_status.started(None)
                    await self._stay(berth, transport)
        except SessionProxyError as exc:
            if berth.transport is None:
                failure = UpstreamStartError(name, str(exc), exc.exit_code)
                failure.__cause__ = exc
                task_status.started(failure)
        finally:
            berth.closed.set()

    async def _succeed(
        self, berth: Berth, *, task_status: trio.TaskStatus[UpstreamStartError | None]
    ) -> None:
        """Keep the upstream of *berth* open, as `_hold` does, once its rivals are closed."""
        name = berth.name
        upstream = attrs.evolve(berth.upstream, startup="background")
        services = attrs.evolve(self._services, notify=partial(self._tell, berth))
        berth.transport = successor = Successor(name)
        task_status.started(None)
        try:
            with berth.scope:
                for rival in berth.rivals:
                    await rival.closed.wait()
                # They had rivals, too.
                berth.rivals = ()
                async with open_transport(name, upstream, services) as transport:
                    berth.transport = transport
                    successor.arrived(transport)
                    self.on_change(self.transports)
                    await self._stay(berth, transport)
        except SessionProxyError as exc:
            successor.failed(str(exc))
            self._tell(berth, UpstreamDown(name, name, str(exc), None))
        finally:
            berth.closed.set()

    async def _stay(self, berth: Berth, transport: Transport) -> None:
        await berth.taken.wait()
        with berth.watching:
            await self._lookout.watch(berth.name, transport)
        await trio.sleep_forever()

    def _tell(self, berth: Berth, event: Event) -> None:
        """Pass *event* on, but not what is now said of another upstream of that name, or of none."""
        if isinstance(event, LinksChanged):
            berth.links = event.links
        if not (berth.is_leaving and isinstance(event, UpstreamUp | UpstreamDown | LinksChanged)):
            self._services.notify(event)

    def _leave(self, berth: Berth) -> None:
        berth.is_leaving = True
        berth.watching.cancel()
        self._lookout.memory.forget(berth.name)
        self._leaving.append(berth)
        if len(self._leaving) > MOST_LEAVING:
            self._leaving[0].until = -math.inf
        self._nursery.start_soon(self._finish, berth)

    async def _finish(self, berth: Berth) -> None:
        """Close *berth* when its last connection is over, or it is time."""
        if count := self._connections(berth):
            self._notice(berth, f"left by a change of the profile; stays for its open connections ({count})")
        while (count := self._connections(berth)) and trio.current_time() < berth.until:
            if berth.closed.is_set():
                break
            # Nobody tells when one of them ends.
            with trio.move_on_after(LOOK):
                await berth.closed.wait()
        if count:
            self._notice(berth, f"left by a change of the profile; its open connections are cut ({count})")
        berth.scope.cancel()
        await berth.closed.wait()
        self._leaving.remove(berth)
        if berth.name not in self._berths:
            self._services.notify(LinksChanged(berth.name, 0))

    def _notice(self, berth: Berth, text: str) -> None:
        self._services.notify(Notice(berth.name, text))

    def _connections(self, berth: Berth) -> int:
        transport = berth.transport
        return 0 if transport is None else transport.streams() + self._lookout.attempts(transport)


def _rivals(upstream: Upstream, going: Sequence[Berth]) -> Sequence[Berth]:
    identity = identity_of(upstream)
    return [] if identity is None else [each for each in going if identity_of(each.upstream) == identity]


@asynccontextmanager
async def open_fleet(services: Services, lookout: Lookout) -> AsyncGenerator[Fleet]:
    """Offer a `Fleet` without upstreams, for the length of a block; all that it has then is closed."""
    async with open_background() as nursery:
        yield Fleet(services, lookout, nursery)

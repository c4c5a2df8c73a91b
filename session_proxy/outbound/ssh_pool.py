"""Keep links to one upstream up, and put each stream on the best of them.

`session_proxy.policy.pool` decides; this file does: one task asks it for steps, every link is a task of its
own that makes the link, proves it by a probe, waits for its end and reports. Streams on a link that ends are
reset; new ones wait while a first attempt is under way, or while all links are away, and fail at once while nothing
is known to work.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from session_proxy.errors import UdpUnsupportedError
from session_proxy.events import LinksChanged, Notice, UpstreamDown, UpstreamUp
from session_proxy.outbound.links import LinkFailedError, LinkLostError, LinkSource, StripedLink
from session_proxy.outbound.rotating import RotatingTransport
from session_proxy.outbound.transport import DatagramAssociation, Health, HealthState, Services
from session_proxy.policy.pool import GROWTH_PATIENCE, Close, Connect, Load, Pool
from session_proxy.policy.rotation import Resolve, Rotation
from session_proxy.target import Target
from tunnel_relay.background import open_background

# From the first packet to the first answered probe. AWS's agent gives a handshake 15 s, and the control call
# before it takes seconds; much longer, and no list would get to its second instance while a client waits.
SETUP_LIMIT = 30.0

# How long finding out what a tag stands for may take.
RESOLVE_LIMIT = 30.0

# Links that are away leave the upstream READY for this long, in seconds: AWS closes WebSockets every hour or so, and
# most are open again within one.
AWAY_PATIENCE = 2.0

# A stream that waits for the pool to grow looks this often, in seconds, whether it need not: nobody tells when
# another has ended, or moves nothing.
SECOND_LOOK = 0.05

Details = tuple[tuple[str, str], ...]


@attrs.define(eq=False)
class PoolTransport(RotatingTransport):
    """A `Transport` over the links of one upstream. Open it with `open_pool`."""

    _source: LinkSource
    _pool: Pool
    _details: Callable[[], Details] = tuple
    """What there is to tell of the way to the instances."""
    _links: dict[int, StripedLink] = attrs.field(factory=dict[int, StripedLink], init=False)
    _scopes: dict[int, trio.CancelScope] = attrs.field(factory=dict[int, trio.CancelScope], init=False)
    _told_size: int = attrs.field(default=0, init=False)
    _away_since: float = attrs.field(default=math.inf, init=False)
    """Since when all links have been away."""
    _waiting: int = attrs.field(default=0, init=False)
    """Streams that wait for the pool to grow."""

    async def connect_tcp(self, target: Target) -> trio.abc.Stream:
        """Open a stream to *target* on the least busy link; where all are busy, wait a little for one more.

        Raises:
          TransportDownError: no link is up, and the last attempts to make one failed.
          DialError: the far end could not reach *target*.

        """
        while True:
            number = await self._place()
            try:
                return await self._links[number].open(target)
            except LinkLostError as exc:
                # Nothing was sent yet, so another link may carry the stream.
                self._link_lost(number, str(exc))

    async def open_udp(self) -> DatagramAssociation:
        """Raise `UdpUnsupportedError`: SSH forwards TCP only."""
        raise UdpUnsupportedError("SSH carries no UDP")

    def health(self) -> Health:
        """Return the state; READY means that a link is up which answered a probe and still does.

        It says so for a moment more while all links are away, with the reason.
        """
        health, more = self._health, self._details()
        return attrs.evolve(health, details=(*health.details, *more)) if more else health

    def hurry(self) -> None:
        """Something has changed for the better: have the next attempt made soon, however long the rest is."""
        self._rotation.demand(trio.current_time())
        self._poked.set()

    async def prove(self) -> None:
        """Ask for a sign of life on every link, and return when all have given one; data is one, too."""
        async with trio.open_nursery() as nursery:
            for link in self._links.values():
                if not (link.away or link.flowing):
                    nursery.start_soon(self._prove_link, link)

    async def _prove_link(self, link: StripedLink) -> None:
        with contextlib.suppress(LinkLostError):
            await link.probe()

    def streams(self) -> int:
        """Return how many streams its links carry."""
        return sum(link.streams for link in self._links.values())

    async def run(self) -> None:
        """Make, keep and close links until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._poked = trio.Event()
                now = trio.current_time()
                for step in self._pool.steps(now, self._loads()):
                    match step:
                        case Resolve(entry):
                            nursery.start_soon(self._resolve, entry)
                        case Connect():
                            nursery.start_soon(self._run_link, step)
                        case Close(number):
                            self._close_link(number)
                with trio.move_on_at(self._pool.next_timer(now)):
                    await self._poked.wait()

    async def _place(self) -> int:
        """Return the number of the link that is to carry a stream; nothing happens between that and its use."""
        until = math.inf
        while True:
            now = trio.current_time()
            number = self._pool.place(now, self._loads(), waiting=self._waiting, patient=now < until)
            if self._pool.wants_more:
                self._poked.set()
            if number is not None:
                return number
            if all(link.away for link in self._links.values()):
                await self._wait_for_link()
                continue
            # Whoever has little time left needs some of it for the destination.
            until = min(until, now + min(GROWTH_PATIENCE, (trio.current_effective_deadline() - now) / 2))
            await self._wait_for_growth(min(until, now + SECOND_LOOK))

    async def _wait_for_growth(self, until: float) -> None:
        self._waiting += 1
        try:
            with trio.move_on_at(until):
                await self._changed.wait()
        finally:
            self._waiting -= 1

    async def _wait_for_link(self) -> None:
        self._check_not_down()
        await self._changed.wait()

    async def _resolve(self, entry: str) -> None:
        try:
            with trio.fail_after(RESOLVE_LIMIT):
                instances = await self._source.resolve(entry)
        except LinkFailedError as exc:
            self._failed(entry, exc, self._resolve_failed(entry, exc))
        except trio.TooSlowError:
            failure = LinkFailedError(f"not found within {RESOLVE_LIMIT:g} s")
            self._failed(entry, failure, self._resolve_failed(entry, failure))
        else:
            self._pool.resolved(entry, instances, trio.current_time())
            self._poked.set()

    def _resolve_failed(self, entry: str, failure: LinkFailedError) -> float:
        return self._pool.resolve_failed(entry, str(failure), trio.current_time(), slow=failure.needs_person)

    async def _run_link(self, step: Connect) -> None:
        """Make one link and stay with it to its end."""
        failure: LinkFailedError | None = None
        with trio.CancelScope() as scope:
            self._scopes[step.link] = scope
            try:
                await self._hold_link(step)
            except LinkFailedError as exc:
                # A link that was up may end badly too; then its loss is what counts.
                self._link_lost(step.link, str(exc))
                failure = exc if self._pool.is_connecting(step.link) else None
            finally:
                # Whatever ended the block, nobody may be given this link any more.
                self._links.pop(step.link, None)
                del self._scopes[step.link]
        if failure is not None:
            rest = self._pool.link_failed(
                step.link, str(failure), trio.current_time(), slow=failure.needs_person
            )
            self._failed(step.instance, failure, rest)

    async def _hold_link(self, step: Connect) -> None:
        began = trio.current_time()
        with trio.move_on_after(SETUP_LIMIT) as setup:
            async with self._source.connect(step.instance) as link:
                try:
                    await link.probe()
                except LinkLostError as exc:
                    raise LinkFailedError(str(exc)) from exc
                setup.deadline = math.inf
                self._link_up(step, link, trio.current_time() - began)
                async with open_background() as nursery:
                    nursery.start_soon(self._watch_presence, link)
                    self._link_lost(step.link, await link.wait_lost())
        if setup.cancelled_caught:
            raise LinkFailedError(f"not connected within {SETUP_LIMIT:g} s")

    async def _watch_presence(self, link: StripedLink) -> None:
        """Tell when *link* goes away, has been away for long, and comes back."""
        while True:
            ready = self._health.state is HealthState.READY
            patience_ends = self._away_since + AWAY_PATIENCE if ready else math.inf
            with trio.move_on_at(patience_ends):
                await link.wait_away_changed()
            before = self._health.state
            self._update("")
            after = self._health
            if after.state is not before:
                back = after.state is HealthState.READY
                text, level = ("the session goes on", "info") if back else (after.reason, "warning")
                self._notify(Notice(self.name, text, level))

    def _link_up(self, step: Connect, link: StripedLink, setup: float) -> None:
        was_ready = self._pool.ready
        self._links[step.link] = link
        self._pool.link_up(step.link, trio.current_time())
        if not was_ready:
            self._notify(UpstreamUp(self.name, step.instance, setup))
        self._update("")

    def _link_lost(self, number: int, reason: str) -> None:
        """Take a link out of use; the first to notice its end reports it."""
        if self._links.pop(number, None) is None:
            return
        via = self._pool.instance_of(number)
        rest = self._pool.link_lost(number, reason, trio.current_time())
        self._notify(UpstreamDown(self.name, via, reason, rest))
        self._update(f"connection to {via} lost: {reason}")

    def _close_link(self, number: int) -> None:
        self._links.pop(number, None)
        self._scopes[number].cancel()
        self._update("")

    def _failed(self, via: str, failure: LinkFailedError, rest: float) -> None:
        self._failure = failure
        self._notify(UpstreamDown(self.name, via, str(failure), rest))
        self._update(str(failure))

    def _update(self, reason: str) -> None:
        """Tell everybody who waits that something has changed; *reason* explains a start."""
        now = trio.current_time()
        away = [link.away for link in self._links.values()]
        self._away_since = min(self._away_since, now) if away and all(away) else math.inf
        if self._pool.ready:
            gone = now >= self._away_since + AWAY_PATIENCE
            state = HealthState.STARTING if gone else HealthState.READY
            reason = min(away, key=bool, default="")
        else:
            state, reason = self._state_without_link(reason)
        if self._told_size != self._pool.size:
            self._told_size = self._pool.size
            self._notify(LinksChanged(self.name, self._told_size))
        via = tuple(("via", instance) for instance in self._pool.instances_up())
        self._publish(state, reason, (*via, ("links", str(self._pool.size))))
        self._poked.set()

    def _loads(self) -> dict[int, Load]:
        return {
            number: Load(link.streams, link.flowing, bool(link.away)) for number, link in self._links.items()
        }


@asynccontextmanager
async def open_pool(
    name: str,
    source: LinkSource,
    *,
    sessions: int,
    required: bool,
    services: Services,
    details: Callable[[], Details] = tuple,
) -> AsyncGenerator[PoolTransport, None]:
    """Keep up to *sessions* links from *source* up for the length of a block.

    Yields when the first link is up; at once where the upstream is not *required*. *details* are told with its health.

    Raises:
      LinkFailedError: the upstream is *required*, and everything it could be reached by has failed.

    """
    rotation = Rotation(source.entries, services.rng)
    transport = PoolTransport(
        name, rotation, services.notify, source, Pool(rotation, limit=sessions), details
    )
    async with open_background() as nursery:
        nursery.start_soon(transport.run)
        if required:
            await transport.wait_settled()
        yield transport

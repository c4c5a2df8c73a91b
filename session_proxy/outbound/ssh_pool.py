"""Keep links to one upstream up, and put each stream on the best of them.

`session_proxy.policy.pool` decides; this file does: one task asks it for steps, every link is a task of its
own that makes the link, proves it by a probe, waits for its end and reports. Streams on a link that ends are
reset; new ones wait while a first attempt is under way, and fail at once while nothing is known to work.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio

from session_proxy.errors import TransportDownError, UdpUnsupportedError
from session_proxy.events import LinksChanged, Notify, UpstreamDown, UpstreamUp
from session_proxy.outbound.links import LinkFailedError, LinkLostError, LinkSource, StripedLink
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

# A stream that waits for the pool to grow looks this often, in seconds, whether it need not: nobody tells when
# another has ended, or moves nothing.
SECOND_LOOK = 0.05


@attrs.define(eq=False)
class PoolTransport:
    """A `Transport` over the links of one upstream. Open it with `open_pool`."""

    name: str
    _source: LinkSource
    _pool: Pool
    _notify: Notify
    _links: dict[int, StripedLink] = attrs.field(factory=dict[int, StripedLink], init=False)
    _scopes: dict[int, trio.CancelScope] = attrs.field(factory=dict[int, trio.CancelScope], init=False)
    _health: Health = attrs.field(init=False)
    _told_size: int = attrs.field(default=0, init=False)
    _waiting: int = attrs.field(default=0, init=False)
    """Streams that wait for the pool to grow."""
    _failure: LinkFailedError | None = attrs.field(default=None, init=False)
    _poked: trio.Event = attrs.field(factory=trio.Event, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._health = Health(HealthState.STARTING, since=trio.current_time())

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

    async def wait_usable(self) -> None:
        """Wait until the upstream is not known to be down, and have the next attempt made soon.

        Raises:
          TransportDownError: it is down for a reason that only a person can change.

        """
        while self._health.state is HealthState.DOWN:
            self._pool.rotation.demand(trio.current_time())
            self._poked.set()
            if self._pool.rotation.needs_person:
                raise TransportDownError(self._health.reason, upstream=self.name)
            await self._changed.wait()

    def health(self) -> Health:
        """Return the state; READY means that a link is up which answered a probe and still does."""
        return self._health

    async def wait_settled(self) -> None:
        """Return when the upstream works.

        Raises:
          LinkFailedError: everything it could be reached by has failed once.

        """
        while self._health.state is not HealthState.READY:
            if self._health.state is HealthState.DOWN:
                assert self._failure is not None
                raise LinkFailedError(self._health.reason, exit_code=self._failure.exit_code)
            await self._changed.wait()

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
            if not self._pool.ready:
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
        if self._health.state is HealthState.DOWN:
            raise TransportDownError(self._health.reason, upstream=self.name)
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
                self._link_lost(step.link, await link.wait_lost())
        if setup.cancelled_caught:
            raise LinkFailedError(f"not connected within {SETUP_LIMIT:g} s")

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
        rotation = self._pool.rotation
        if self._pool.ready:
            state, reason = HealthState.READY, ""
        elif rotation.exhausted:
            state = HealthState.DOWN
            reason = rotation.reason()
        else:
            state = HealthState.STARTING
        since = self._health.since if state is self._health.state else trio.current_time()
        if self._told_size != self._pool.size:
            self._told_size = self._pool.size
            self._notify(LinksChanged(self.name, self._told_size))
        via = tuple(("via", instance) for instance in self._pool.instances_up())
        self._health = Health(state, reason, since, (*via, ("links", str(self._pool.size))))
        self._changed.set()
        self._changed = trio.Event()
        self._poked.set()

    def _loads(self) -> dict[int, Load]:
        return {number: Load(link.streams, link.flowing) for number, link in self._links.items()}


@asynccontextmanager
async def open_pool(
    name: str, source: LinkSource, *, sessions: int, required: bool, services: Services
) -> AsyncGenerator[PoolTransport, None]:
    """Keep up to *sessions* links from *source* up for the length of a block.

    Yields when the first link is up; at once where the upstream is not *required*.

    Raises:
      LinkFailedError: the upstream is *required*, and everything it could be reached by has failed.

    """
    pool = Pool(Rotation(source.entries, services.rng), limit=sessions)
    transport = PoolTransport(name, source, pool, services.notify)
    async with open_background() as nursery:
        nursery.start_soon(transport.run)
        if required:
            await transport.wait_settled()
        yield transport

"""Choose a way out by the routes, and try the ways in order within one deadline.

An upstream that is known to be down costs nothing while another one works: it is passed over. Only where no
other way gave an answer is it waited for.
"""

from __future__ import annotations

import ipaddress
import math
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from session_proxy.outbound.fleet import Berth, Fleet, open_fleet
from session_proxy.outbound.lookout import Lookout, raced_upstreams
from session_proxy.outbound.search import Connected, Search
from session_proxy.outbound.transport import (
    EarlyBytes,
    Health,
    Services,
    Transport,
)
from session_proxy.policy.changes import Changes
from session_proxy.policy.race import Memory
from session_proxy.policy.route_table import RouteTable
from session_proxy.policy.rules import Address, Decision
from session_proxy.profile.model import Failover, Profile
from session_proxy.target import Target
from tunnel_relay.background import open_background

# A name that is looked up for a rule's sake only (`resolve = "local"`) may hold a connection this long; after
# that it matches no address rule. A resolver's own time-out (5 s a try, resolv.conf(5)) is about as long.
LOOKUP_LIMIT = 5.0

# A resolver that hangs must not take the threads that everything else shares.
MOST_LOOKUPS = 32

# Finish this long before the caller's own deadline, so that it learns who was tried instead of a bare
# time-out.
MARGIN = 0.1


def system_addresses(name: str) -> tuple[Address, ...]:
    """Return the addresses of *name* by this machine's resolver, none where it has none; blocks."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    # A scoped address ("fe80::1%eth0") compares without its scope.
    texts = (str(entry[4][0]).partition("%")[0] for entry in found)
    return tuple(ipaddress.ip_address(text) for text in dict.fromkeys(texts))


@attrs.define(eq=False)
class Dialer:
    """Decides where connections go, and opens them.

    *transports* holds every upstream by name, ``direct`` included; *connect_limit* is how many seconds one
    connection may take where the caller has set no deadline of its own; *look_up* is called in threads. *lookout*
    knows how the upstreams fared.
    """

    table: RouteTable
    transports: Mapping[str, Transport]
    connect_limit: float = 30.0
    look_up: Callable[[str], tuple[Address, ...]] = system_addresses
    lookout: Lookout = attrs.field(factory=lambda: Lookout(Memory(Failover().back_after)))
    changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when there are other transports from now on; then there is another event."""
    _threads: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(MOST_LOOKUPS), init=False, repr=False
    )

    def adopt(self, transports: Mapping[str, Transport]) -> None:
        """Use these *transports* from now on; who waits for one of the others looks again."""
        self.transports = transports
        self.changed.set()
        self.changed = trio.Event()

    async def decide(self, target: Target) -> Decision:
        """Return the first rule that matches *target*; a name is looked up only where a rule asks for it."""
        if not self.table.wants_addresses(target):
            return self.table.decide(target)
        addresses: tuple[Address, ...] = ()
        with trio.move_on_after(LOOKUP_LIMIT):
            addresses = await trio.to_thread.run_sync(
                self.look_up, target.host, abandon_on_cancel=True, limiter=self._threads
            )
        return self.table.decide(target, addresses)

    async def connect(self, target: Target, decision: Decision, early: EarlyBytes | None = None) -> Connected:
        """Open a stream to *target* through the first upstream of *decision* that can.

        What is left of the caller's deadline is split evenly between the upstreams still to be tried. The
        destination is opened through one upstream at a time. An upstream that can takes the *early* bytes with it,
        which is then to be seen by their ``sent``; where they may have arrived in vain, no other one is tried unless
        they are repeatable.

        Raises:
          DialError: no upstream could, or one gave a final answer. The message names every upstream tried,
            `upstream` the one whose answer this is.

        """
        return await Search(self, target, decision, self._deadline(), early).run()

    def health(self) -> Mapping[str, Health]:
        """Return the state of every upstream by name, ``direct`` included, without waiting."""
        return {name: transport.health() for name, transport in self.transports.items()}

    def _deadline(self) -> float:
        now = trio.current_time()
        remaining = trio.current_effective_deadline() - now
        if math.isinf(remaining):
            return now + self.connect_limit
        return now + min(self.connect_limit, remaining - min(MARGIN, remaining / 20))


@attrs.frozen
class Preparation:
    """What `Ways.prepare` has made ready for a change."""

    profile: Profile
    table: RouteTable
    berths: Sequence[Berth]


@attrs.frozen(eq=False)
class Ways:
    """The dialer of a profile, which may be exchanged for another one while connections go on."""

    dialer: Dialer
    _fleet: Fleet

    @asynccontextmanager
    async def prepare(self, profile: Profile, changes: Changes) -> AsyncGenerator[Preparation]:
        """Open what is new in *profile*, for a block in which `commit` may take it over; else it is closed again.

        Raises:
          UpstreamStartError: an upstream that is new, or changed, and required does not work.

        """
        # With thousands of routes it takes a while.
        table = await trio.to_thread.run_sync(RouteTable.build, profile.routes, profile.default)
        coming = {name: profile.upstreams[name] for name in changes.coming}
        berths = await self._fleet.stage(coming, changes.leaving)
        try:
            yield Preparation(profile, table, berths)
        finally:
            self._fleet.discard([berth for berth in berths if not berth.taken.is_set()])

    def commit(self, prepared: Preparation) -> None:
        """Send new connections where the profile says; what leaves finishes what it has."""
        profile, dialer = prepared.profile, self.dialer
        dialer.table, dialer.connect_limit = prepared.table, profile.limits.connect
        dialer.lookout.memory.failback = profile.failover.back_after
        dialer.lookout.raced = raced_upstreams(profile.routes)
        self._fleet.commit(prepared.berths, list(profile.upstreams), drain=profile.limits.drain)


@asynccontextmanager
async def open_ways(profile: Profile, services: Services) -> AsyncGenerator[Ways]:
    """Open every upstream of *profile* and yield the ways out through them.

    Yields when all upstreams with ``startup = "required"`` are usable; the others come up in the background.

    Raises:
      UpstreamStartError: a required upstream does not work.

    """
    lookout = Lookout(Memory(profile.failover.back_after), services.notify, raced_upstreams(profile.routes))
    async with open_background() as nursery, open_fleet(services, lookout) as fleet:
        nursery.start_soon(lookout.run)
        upstreams = {
            name: attrs.evolve(upstream, startup=profile.startup_of(name))
            for name, upstream in profile.upstreams.items()
        }
        berths = await fleet.stage(upstreams)
        dialer = Dialer(
            table=RouteTable.build(profile.routes, profile.default),
            transports=fleet.transports,
            connect_limit=profile.limits.connect,
            lookout=lookout,
        )
        fleet.on_change = dialer.adopt
        fleet.commit(berths, list(upstreams), drain=0)
        yield Ways(dialer, fleet)


@asynccontextmanager
async def open_dialer(profile: Profile, services: Services) -> AsyncGenerator[Dialer]:
    """Open every upstream of *profile* and yield the dialer over them, as `open_ways` does."""
    async with open_ways(profile, services) as ways:
        yield ways.dialer

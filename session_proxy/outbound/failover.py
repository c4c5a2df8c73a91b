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

from session_proxy.errors import DialError, DialTimeoutError, NotAllowedError, TransportDownError
from session_proxy.outbound.opening import open_transports
from session_proxy.outbound.transport import (
    EarlyBytes,
    EarlyTransport,
    Health,
    HealthState,
    Services,
    Transport,
)
from session_proxy.policy.route_table import RouteTable
from session_proxy.policy.rules import REJECT, Address, Decision
from session_proxy.profile.model import Profile
from session_proxy.target import Target

# A name that is looked up for a rule's sake only (`resolve = "local"`) may hold a connection this long; after
# that it matches no address rule. A resolver's own time-out (5 s a try, resolv.conf(5)) is about as long.
LOOKUP_LIMIT = 5.0

# A resolver that hangs must not take the threads that everything else shares.
MOST_LOOKUPS = 32

# An upstream that is coming up, or back, is given this long (seconds) where one further down the list is ready: a
# session through AWS takes a second or two to come up, and what takes much longer may not come up at all.
PATIENCE = 5.0

# Finish this long before the caller's own deadline, so that it learns who was tried instead of a bare
# time-out.
MARGIN = 0.1


@attrs.frozen
class Connected:
    """A stream to the destination, and the upstream that carries it."""

    upstream: str
    stream: trio.abc.Stream


def system_addresses(name: str) -> tuple[Address, ...]:
    """Return the addresses of *name* by this machine's resolver, none where it has none; blocks."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    # A scoped address ("fe80::1%eth0") compares without its scope.
    texts = (str(entry[4][0]).partition("%")[0] for entry in found)
    return tuple(ipaddress.ip_address(text) for text in dict.fromkeys(texts))


@attrs.frozen(eq=False)
class Dialer:
    """Decides where connections go, and opens them.

    *transports* holds every upstream by name, ``direct`` included; *connect_limit* is how many seconds one
    connection may take where the caller has set no deadline of its own; *look_up* is called in threads.
    """

    table: RouteTable
    transports: Mapping[str, Transport]
    connect_limit: float = 30.0
    look_up: Callable[[str], tuple[Address, ...]] = system_addresses
    _threads: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(MOST_LOOKUPS), init=False, repr=False
    )

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
        until = self._deadline()
        while True:
            failures: list[DialError] = []
            outcome = await self._try_each(target, decision, until, failures, early)
            if outcome is not None:
                return outcome
            nobody_asked = all(isinstance(failure, TransportDownError) for failure in failures)
            if not (nobody_asked and await self._wait_for_any(decision.upstreams, until)):
                raise _summary(target, failures)

    async def _try_each(
        self,
        target: Target,
        decision: Decision,
        until: float,
        failures: list[DialError],
        early: EarlyBytes | None,
    ) -> Connected | None:
        left = [name for name in decision.upstreams if not self._is_down(name)]
        for name in decision.upstreams:
            if name == REJECT:
                failures.append(NotAllowedError(f"rejected by {decision.rule}", upstream=REJECT))
                raise _summary(target, failures)
            if name not in left:
                failures.append(self._known_failure(name))
                continue
            now = trio.current_time()
            share = now + max(0.0, until - now) / len(left)
            left.remove(name)
            if not self._is_sure(name) and any(map(self._is_sure, left)):
                share = min(share, now + PATIENCE)
            try:
                # A scope of its own, for this happens per connection: `trio.fail_at` costs 6 µs more.
                with trio.CancelScope(deadline=share):
                    return Connected(name, await _open(self.transports[name], target, early))
            except DialError as exc:
                exc.upstream = name
                failures.append(exc)
                if exc.final:
                    raise _summary(target, failures) from exc
            else:
                failures.append(self._too_slow(name, share - now))
            if early is not None and early.is_spent:
                raise _summary(target, failures)
        return None

    async def _wait_for_any(self, names: Sequence[str], until: float) -> bool:
        """Return whether one of the upstreams that are down comes back before *until*."""
        usable = False

        async def wait(name: str) -> None:
            nonlocal usable
            try:
                await self.transports[name].wait_usable()
            except TransportDownError:
                return
            usable = True
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = until
            for name in filter(self._is_down, names):
                nursery.start_soon(wait, name)
        return usable

    def health(self) -> Mapping[str, Health]:
        """Return the state of every upstream by name, ``direct`` included, without waiting."""
        return {name: transport.health() for name, transport in self.transports.items()}

    def _deadline(self) -> float:
        now = trio.current_time()
        remaining = trio.current_effective_deadline() - now
        if math.isinf(remaining):
            return now + self.connect_limit
        return now + min(self.connect_limit, remaining - min(MARGIN, remaining / 20))

    def _is_down(self, name: str) -> bool:
        return self._is(HealthState.DOWN, name)

    def _is(self, state: HealthState, name: str) -> bool:
        return name != REJECT and self.transports[name].health().state is state

    def _is_sure(self, name: str) -> bool:
        return name != REJECT and self.transports[name].health().sure

    def _known_failure(self, name: str) -> DialError:
        return TransportDownError(self.transports[name].health().reason or "down", upstream=name)

    def _too_slow(self, name: str, waited: float) -> DialError:
        health = self.transports[name].health()
        if health.sure:
            return DialTimeoutError(f"no answer within {waited:.1f} s", upstream=name)
        why = f": {health.reason}" if health.reason else ""
        state = "" if health.state is HealthState.READY else f"{health.state.value}, "
        return TransportDownError(f"{state}not ready within {waited:.1f} s{why}", upstream=name)


async def _open(transport: Transport, target: Target, early: EarlyBytes | None) -> trio.abc.Stream:
    if early is None:
        return await transport.connect_tcp(target)
    early.sent = False
    if not early.data or not isinstance(transport, EarlyTransport):
        return await transport.connect_tcp(target)
    return await transport.connect_tcp_early(target, early)


def _summary(target: Target, failures: Sequence[DialError]) -> DialError:
    """Merge *failures* into one; a final answer sets its class, else the last that is about *target*."""
    about_target = [failure for failure in failures if not isinstance(failure, TransportDownError)]
    told = failures[-1] if failures[-1].final or not about_target else about_target[-1]
    tried = "; ".join(f"through {failure.upstream}: {failure}" for failure in failures)
    text = f"{target}: {failures[-1]}" if failures[-1].upstream == REJECT else f"{target} {tried}"
    return type(told)(text, upstream=told.upstream)


@asynccontextmanager
async def open_dialer(profile: Profile, services: Services) -> AsyncGenerator[Dialer, None]:
    """Open every upstream of *profile* and yield the dialer over them.

    Yields when all upstreams with ``startup = "required"`` are usable; the others come up in the background.

    Raises:
      UpstreamStartError: a required upstream does not work.

    """
    async with open_transports(profile, services) as transports:
        yield Dialer(
            table=RouteTable.build(profile.routes, profile.default),
            transports=transports,
            connect_limit=profile.limits.connect,
        )

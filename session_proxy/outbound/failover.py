"""Choose a way out by the routes, and try the ways in order within one deadline.

Which of them is ready is a race with staggered starts (`session_proxy.policy.race`); the destination is opened through
one at a time. An upstream that is known to be down costs nothing while another one works: it is passed over. Only
where no other way gave an answer is it waited for.
"""

from __future__ import annotations

import ipaddress
import math
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from session_proxy.errors import DialError, DialTimeoutError, NotAllowedError, TransportDownError
from session_proxy.outbound.lookout import Attempt, Lookout, raced_upstreams, standing_of
from session_proxy.outbound.opening import open_transports
from session_proxy.outbound.transport import (
    EarlyBytes,
    EarlyTransport,
    Health,
    HealthState,
    Services,
    Transport,
)
from session_proxy.policy.race import Memory, Runner, Standing, Use, Wait, next_move
from session_proxy.policy.route_table import RouteTable
from session_proxy.policy.rules import REJECT, Address, Decision
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
        return await _Search(self, target, decision, self._deadline(), early).run()

    def health(self) -> Mapping[str, Health]:
        """Return the state of every upstream by name, ``direct`` included, without waiting."""
        return {name: transport.health() for name, transport in self.transports.items()}

    def _deadline(self) -> float:
        now = trio.current_time()
        remaining = trio.current_effective_deadline() - now
        if math.isinf(remaining):
            return now + self.connect_limit
        return now + min(self.connect_limit, remaining - min(MARGIN, remaining / 20))


@attrs.define(eq=False)
class _Search:
    """One connection to *target* being made, until *until*; *left* are the upstreams that may still be used."""

    dialer: Dialer
    target: Target
    decision: Decision
    until: float
    early: EarlyBytes | None
    left: list[str] = attrs.field(init=False)
    failures: dict[str, DialError] = attrs.field(factory=dict[str, DialError], init=False)

    def __attrs_post_init__(self) -> None:
        self.left = list(dict.fromkeys(self.decision.upstreams))

    async def run(self) -> Connected:
        """Return the connection; raises `DialError`."""
        began = trio.current_time()
        while True:
            self._drop_removed()
            match self._next_move(began):
                case Use(name):
                    if (stream := await self._try(name)) is not None:
                        return Connected(name, stream)
                case Wait(until):
                    if not await self._wait_for_news(min(until, self.until)):
                        raise self._given_up(began)
                case None:
                    asked = any(not isinstance(exc, TransportDownError) for exc in self.failures.values())
                    if asked or not await self._wait_for_news(self.until):
                        raise self._given_up(began)

    def _drop_removed(self) -> None:
        """Leave out what a change of the profile has taken away since the decision."""
        for name in [each for each in self.left if each != REJECT and each not in self.dialer.transports]:
            self.left.remove(name)
            self.failures[name] = TransportDownError("is no longer part of the profile", upstream=name)

    def _next_move(self, began: float) -> Use | Wait | None:
        if len(self.left) == 1 and not self._is_down(self.left[0]):
            # It is waited for where it is used.
            return Use(self.left[0])
        runners = [self._runner(name) for name in self.left]
        # Whoever is used in the end needs some of the time, too.
        latest = began + (self.until - began) / max(1, len(runners))
        return next_move(runners, began, trio.current_time(), latest)

    async def _try(self, name: str) -> trio.abc.Stream | None:
        """Return a stream through the upstream called *name*, or note why there is none; raises what is final."""
        if name == REJECT:
            raise self._summary(NotAllowedError(f"rejected by {self.decision.rule}", upstream=REJECT))
        self._pass_over(name)
        now = trio.current_time()
        others = sum(not self._is_down(other) for other in self.left if other != name)
        share = now + max(0.0, self.until - now) / (1 + others)
        self.left.remove(name)
        dialer = self.dialer
        transport = dialer.transports[name]
        # A scope of its own, for this happens per connection: `trio.fail_at` costs 6 µs more.
        attempt = Attempt(trio.CancelScope(deadline=share), self._has_another, self.early)
        dialer.lookout.begin(transport, attempt)
        try:
            with attempt.scope as scope:
                return await _open(transport, self.target, self.early)
            failure: DialError = _too_slow(name, transport, scope.deadline - now)
        except DialError as exc:
            exc.upstream = name
            if exc.final:
                raise self._summary(exc) from exc
            failure = exc
        finally:
            dialer.lookout.end(transport, attempt)
        self.failures[name] = failure
        if self.early is not None and self.early.is_spent:
            raise self._summary()
        if isinstance(failure, TransportDownError) and self._is_down(name):
            # It has asked nobody, and may come back.
            self.left = [each for each in self.decision.upstreams if each == name or each in self.left]
        return None

    def _pass_over(self, name: str) -> None:
        """Note why those before *name* are not used."""
        for other in self.left[: self.left.index(name)]:
            runner = self._runner(other)
            if runner.standing is Standing.COMING:
                self.dialer.lookout.memory.passed(other)
            elif runner.standing is Standing.DOWN:
                self.failures[other] = self._known_failure(other)

    async def _wait_for_news(self, until: float) -> bool:
        """Wait for a change of those that are left, or *until*; return whether there is still time, and hope."""
        hope = until < self.until
        waiting = {name: self.dialer.transports[name] for name in self.left if name != REJECT}
        if not (waiting or hope):
            await trio.lowlevel.checkpoint()
            return False

        def news() -> None:
            nonlocal hope
            hope = True
            nursery.cancel_scope.cancel()

        async def wait(name: str, transport: Transport) -> None:
            down = transport.health().state is HealthState.DOWN
            try:
                await (transport.wait_usable() if down else transport.wait_changed())
            except TransportDownError:
                del waiting[name]
                if not (waiting or hope):
                    nursery.cancel_scope.cancel()
            else:
                news()

        async def wait_for_others() -> None:
            await self.dialer.changed.wait()
            news()

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = until
            nursery.start_soon(wait_for_others)
            for name, transport in tuple(waiting.items()):
                nursery.start_soon(wait, name, transport)
        return hope

    def _given_up(self, began: float) -> DialError:
        self._drop_removed()
        for name in self.left:
            if self._is_down(name):
                self.failures[name] = self._known_failure(name)
            elif name != REJECT:
                transport = self.dialer.transports[name]
                self.failures[name] = _too_slow(name, transport, trio.current_time() - began)
        return self._summary()

    def _summary(self, final: DialError | None = None) -> DialError:
        """Merge what went wrong into one; a *final* answer sets its class, else the last that is about the target."""
        if final is not None:
            self.failures[final.upstream] = final
        failures = [self.failures[name] for name in self.decision.upstreams if name in self.failures]
        about_target = [failure for failure in failures if not isinstance(failure, TransportDownError)]
        told = final or (about_target or failures)[-1]
        tried = "; ".join(f"through {failure.upstream}: {failure}" for failure in failures)
        text = f"{self.target}: {told}" if told.upstream == REJECT else f"{self.target} {tried}"
        return type(told)(text, upstream=told.upstream)

    def _has_another(self) -> bool:
        return any(self._standing(name) is Standing.READY for name in self.left if name != REJECT)

    def _runner(self, name: str) -> Runner:
        if name == REJECT:
            return Runner(name, Standing.READY)
        return self.dialer.lookout.runner(name, self.dialer.transports[name])

    def _standing(self, name: str) -> Standing:
        # While a connection is being opened, the profile may lose what it could go through else.
        transport = self.dialer.transports.get(name)
        return Standing.DOWN if transport is None else standing_of(transport.health())

    def _is_down(self, name: str) -> bool:
        return name != REJECT and self._standing(name) is Standing.DOWN

    def _known_failure(self, name: str) -> DialError:
        return TransportDownError(self.dialer.transports[name].health().reason or "down", upstream=name)


def _too_slow(name: str, transport: Transport, waited: float) -> DialError:
    health = transport.health()
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


@asynccontextmanager
async def open_dialer(profile: Profile, services: Services) -> AsyncGenerator[Dialer, None]:
    """Open every upstream of *profile* and yield the dialer over them.

    Yields when all upstreams with ``startup = "required"`` are usable; the others come up in the background.

    Raises:
      UpstreamStartError: a required upstream does not work.

    """
    lookout = Lookout(Memory(profile.failover.back_after), services.notify, raced_upstreams(profile.routes))
    async with open_transports(profile, services) as transports, open_background() as nursery:
        for name, transport in transports.items():
            nursery.start_soon(lookout.watch, name, transport)
        yield Dialer(
            table=RouteTable.build(profile.routes, profile.default),
            transports=transports,
            connect_limit=profile.limits.connect,
            lookout=lookout,
        )

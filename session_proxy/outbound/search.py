"""Make one connection through one of several upstreams, within one deadline.

Which of them is ready is a race with staggered starts (`session_proxy.policy.race`); the destination is opened through
one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs
import trio

from session_proxy.errors import DialError, DialTimeoutError, NotAllowedError, TransportDownError
from session_proxy.outbound.lookout import Attempt, Lookout, standing_of
from session_proxy.outbound.transport import EarlyBytes, EarlyTransport, HealthState, Transport
from session_proxy.policy.race import Runner, Standing, Use, Wait, next_move
from session_proxy.policy.rules import REJECT, Decision
from session_proxy.target import Target


@attrs.frozen
class Connected:
    """A stream to the destination, and the upstream that carries it."""

    upstream: str
    stream: trio.abc.Stream


class Ways(Protocol):
    """The upstreams that there are: `session_proxy.outbound.failover.Dialer`."""

    @property
    def transports(self) -> Mapping[str, Transport]:
        """All of them by name, as they are now."""
        ...

    @property
    def changed(self) -> trio.Event:
        """Set when there are others."""
        ...

    @property
    def lookout(self) -> Lookout:
        """What is known of them."""
        ...


@attrs.define(eq=False)
class Search:
    """One connection to *target* being made, until *until*; *left* are the upstreams that may still be used."""

    ways: Ways
    target: Target
    decision: Decision
    until: float
    early: EarlyBytes | None
    left: list[str] = attrs.field(init=False)
    failures: dict[str, DialError] = attrs.field(factory=dict[str, DialError], init=False)
    again: list[str] = attrs.field(factory=list[str], init=False)
    """Those that gave way to others, and are tried once more where these can do nothing."""
    second_time: set[str] = attrs.field(factory=set[str], init=False)

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
                case None if self.again:
                    self._readmit(*self.again)
                    self.again = []
                case None:
                    asked = any(not isinstance(exc, TransportDownError) for exc in self.failures.values())
                    if asked or not await self._wait_for_news(self.until):
                        raise self._given_up(began)

    def _drop_removed(self) -> None:
        """Leave out what a change of the profile has taken away since the decision."""
        transports = self.ways.transports
        for name in tuple(self.left):
            if name not in transports and name != REJECT:
                self.left.remove(name)
                self.failures[name] = TransportDownError("is no longer part of the profile", upstream=name)

    def _next_move(self, began: float) -> Use | Wait | None:
        # Mostly the first can be used, so that looking at all of them would be in vain.
        if self.left and (first := self.left[0]) != REJECT:
            health = self.ways.transports[first].health()
            if len(self.left) == 1 and health.state is not HealthState.DOWN:
                # It is waited for where it is used.
                return Use(first)
            if health.sure and not self.ways.lookout.observe(first, health).rests:
                return Use(first)
        runners = [self._runner(name) for name in self.left]
        # Whoever is used in the end needs some of the time, too.
        latest = began + (self.until - began) / max(1, len(runners))
        return next_move(runners, began, trio.current_time(), latest)

    async def _try(self, name: str) -> trio.abc.Stream | None:
        """Return a stream through the upstream called *name*, or note why there is none; raises what is final."""
        if name == REJECT:
            raise self._summary(NotAllowedError(f"rejected by {self.decision.rule}", upstream=REJECT))
        if name != self.left[0]:
            self._pass_over(name)
        self.left.remove(name)
        now, share = trio.current_time(), self.until
        if self.left or self.again:
            others = sum(not self._is_down(other) for other in self.left) + len(self.again)
            share = now + max(0.0, self.until - now) / (1 + others)
        ways = self.ways
        transport = ways.transports[name]
        # A scope of its own, for this happens per connection: `trio.fail_at` costs 6 µs more.
        attempt = Attempt(trio.CancelScope(deadline=share), self._has_another, self.early, bool(self.left))
        ways.lookout.begin(transport, attempt)
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
            ways.lookout.end(transport, attempt)
        self.failures[name] = failure
        if self.early is not None and self.early.is_spent:
            raise self._summary()
        if isinstance(failure, TransportDownError) and self._is_down(name):
            # It has asked nobody, and may come back.
            self._readmit(name)
        elif attempt.gave_way and name not in self.second_time:
            self.second_time.add(name)
            self.again.append(name)
        return None

    def _readmit(self, *names: str) -> None:
        """Let *names* be used once more, in their place."""
        order = dict.fromkeys(self.decision.upstreams)
        self.left = [each for each in order if each in names or each in self.left]

    def _pass_over(self, name: str) -> None:
        """Note why those before *name* are not used."""
        for other in self.left[: self.left.index(name)]:
            runner = self._runner(other)
            if runner.standing is Standing.COMING:
                self.ways.lookout.memory.passed(other)
            elif runner.standing is Standing.DOWN:
                self.failures[other] = self._known_failure(other)

    async def _wait_for_news(self, until: float) -> bool:
        """Wait for a change of those that are left, or *until*; return whether there is still time, and hope."""
        hope = until < self.until
        waiting = {name: self.ways.transports[name] for name in self.left if name != REJECT}
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
            await self.ways.changed.wait()
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
                transport = self.ways.transports[name]
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
        return self.ways.lookout.runner(name, self.ways.transports[name])

    def _standing(self, name: str) -> Standing:
        # While a connection is being opened, the profile may lose what it could go through else.
        transport = self.ways.transports.get(name)
        return Standing.DOWN if transport is None else standing_of(transport.health())

    def _is_down(self, name: str) -> bool:
        return name != REJECT and self._standing(name) is Standing.DOWN

    def _known_failure(self, name: str) -> DialError:
        return TransportDownError(self.ways.transports[name].health().reason or "down", upstream=name)


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

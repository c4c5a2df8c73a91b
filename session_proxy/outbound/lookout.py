"""Watch the upstreams, remember how they fared, and hurry along who waits for one that has just failed.

`session_proxy.policy.race` decides; this brings it the facts. Each upstream has a task that looks at it when something
changes: it notes what came of it, asks for attempts to bring it back while it is down, and cuts short the connections
that are being opened through it where another upstream is ready.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence

import attrs
import trio

from session_proxy.errors import TransportDownError
from session_proxy.events import Notice, Notify, ignore
from session_proxy.outbound.transport import EarlyBytes, Health, HealthState, ProvableTransport, Transport
from session_proxy.policy.race import (
    PROBE_INTERVAL,
    PROVE_AFTER,
    PROVE_LIMIT,
    STAGGER,
    Memory,
    Runner,
    Standing,
)
from session_proxy.policy.rules import RESERVED, Rule


def standing_of(health: Health) -> Standing:
    """Return what *health* is worth in a race."""
    if health.sure:
        return Standing.READY
    return Standing.DOWN if health.state is HealthState.DOWN else Standing.COMING


def raced_upstreams(rules: Sequence[Rule]) -> frozenset[str]:
    """Return the upstreams that a route lists beside others."""
    return (
        frozenset(name for rule in rules if len(set(rule.upstream)) > 1 for name in rule.upstream) - RESERVED
    )


@attrs.define(eq=False)
class Attempt:
    """A connection that is being opened.

    Where its route *has others*, *is_replaceable* tells whether one of them could take it over now.
    """

    scope: trio.CancelScope
    is_replaceable: Callable[[], bool]
    early: EarlyBytes | None
    has_others: bool = True
    gave_way: bool = attrs.field(default=False, init=False)
    """Whether it was ended for another one's sake, and not because nothing can come of it."""

    def hurry(self) -> None:
        """Give it a moment more, where there is another way; what it has sent may not be sent again."""
        self._end_in(STAGGER)

    def give_way(self) -> None:
        """End it, where there is another way."""
        self._end_in(0)

    def _end_in(self, seconds: float) -> None:
        if (self.early is None or not self.early.is_spent) and self.is_replaceable():
            self.gave_way = True
            self.scope.deadline = min(self.scope.deadline, trio.current_time() + seconds)


@attrs.define(eq=False)
class Lookout:
    """What is known of the upstreams of one dialer. *raced* are those that may be replaced by others."""

    memory: Memory
    notify: Notify = ignore
    raced: frozenset[str] = frozenset()
    _attempts: dict[Transport, set[Attempt]] = attrs.field(factory=dict[Transport, set[Attempt]], init=False)
    _begun: trio.Event = attrs.field(factory=trio.Event, init=False)
    _proving: set[Transport] = attrs.field(factory=set[Transport], init=False)

    def runner(self, name: str, transport: Transport) -> Runner:
        """Return how the upstream called *name* is now."""
        return self.observe(name, transport.health())

    def observe(self, name: str, health: Health) -> Runner:
        """Return what *health* makes of the upstream called *name*."""
        standing = standing_of(health)
        memory = self.memory
        memory.observe(name, standing, trio.current_time())
        return Runner(name, standing, health.since, rests=memory.rests(name), fresh=memory.is_fresh(name))

    def begin(self, transport: Transport, attempt: Attempt) -> None:
        """Count *attempt* among those that *transport* is needed for, until `end`."""
        self._attempts.setdefault(transport, set()).add(attempt)
        if attempt.has_others:
            self._begun.set()

    def end(self, transport: Transport, attempt: Attempt) -> None:
        """Note that *attempt* is over."""
        attempts = self._attempts[transport]
        attempts.discard(attempt)
        if not attempts:
            del self._attempts[transport]

    def attempts(self, transport: Transport) -> int:
        """Return how many connections are being opened through *transport*."""
        return len(self._attempts.get(transport, ()))

    async def run(self) -> None:
        """Have upstreams prove themselves through which a connection takes long, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._begun.wait()
                self._begun = trio.Event()
                await trio.sleep(PROVE_AFTER)
                for transport, attempts in self._attempts.items():
                    waiting = transport not in self._proving and any(
                        each.is_replaceable() for each in attempts
                    )
                    if waiting and isinstance(transport, ProvableTransport):
                        self._proving.add(transport)
                        nursery.start_soon(self._prove, transport, transport, tuple(attempts))

    async def _prove(
        self, transport: Transport, provable: ProvableTransport, attempts: Sequence[Attempt]
    ) -> None:
        with trio.move_on_after(PROVE_LIMIT) as waiting:
            await provable.prove()
        self._proving.discard(transport)
        if waiting.cancelled_caught:
            for attempt in self._attempts.get(transport, set[Attempt]()).intersection(attempts):
                attempt.give_way()

    async def watch(self, name: str, transport: Transport) -> None:
        """Watch the upstream called *name*, until cancelled."""
        probe_at = -math.inf
        while True:
            now = trio.current_time()
            rested = self.memory.rests(name)
            runner = self.runner(name, transport)
            if rested and not runner.rests and name in self.raced:
                self.notify(Notice(name, "ready again: new connections go back to it"))
            if runner.standing is not Standing.READY:
                for attempt in self._attempts.get(transport, ()):
                    attempt.hurry()
            wake_at = self.memory.back_at(name)
            if runner.standing is Standing.DOWN and name in self.raced:
                if now >= probe_at:
                    probe_at = now + PROBE_INTERVAL
                    await ask_for_attempt(transport)
                    continue
                wake_at = probe_at
            with trio.move_on_at(wake_at):
                await transport.wait_changed()


async def ask_for_attempt(transport: Transport) -> None:
    """Have *transport*, which is down, make its next attempt to come back soon; wait for nothing."""
    with trio.move_on_after(0), contextlib.suppress(TransportDownError):
        await transport.wait_usable()

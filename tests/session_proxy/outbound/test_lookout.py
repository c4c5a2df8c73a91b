"""What is known of upstreams, in virtual time; test_failover.py has the connections that are made of it."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from session_proxy.events import Event, Notice
from session_proxy.outbound.lookout import Attempt, Lookout, raced_upstreams, standing_of
from session_proxy.outbound.transport import EarlyBytes, Health, HealthState, ProvableTransport
from session_proxy.policy.race import PROBE_INTERVAL, PROVE_AFTER, PROVE_LIMIT, STAGGER, Memory, Standing
from session_proxy.policy.rules import Rule
from tests.support.transports import FakeTransport


@asynccontextmanager
async def watching(lookout: Lookout, transport: FakeTransport) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lookout.watch, "dev", transport)
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("state", "reason", "standing"),
    [
        (HealthState.READY, "", Standing.READY),
        (HealthState.READY, "in doubt", Standing.COMING),
        (HealthState.STARTING, "", Standing.COMING),
        (HealthState.DOWN, "gone", Standing.DOWN),
    ],
)
def test_what_health_is_worth(state: HealthState, reason: str, standing: Standing) -> None:
    assert standing_of(Health(state, reason)) is standing


def test_only_upstreams_beside_others_are_raced() -> None:
    rules = [Rule.of("a.b", "alone"), Rule.of("c.d", ["one", "two", "direct"]), Rule.of("e.f", ["x", "x"])]

    assert raced_upstreams(rules) == {"one", "two"}


@pytest.mark.parametrize("hopeless", [False, True])
async def test_one_that_is_down_is_asked_for_now_and_then(
    autojump_clock: trio.testing.MockClock, hopeless: bool
) -> None:
    transport = FakeTransport(state=HealthState.DOWN, hopeless=hopeless)
    async with watching(Lookout(Memory(60), raced=frozenset({"dev"})), transport):
        await trio.sleep(1)
        assert transport.wanted == 1
        await trio.sleep(PROBE_INTERVAL)
        assert transport.wanted == 2
        for _ in range(5):
            transport.become(HealthState.STARTING)
            await trio.sleep(1)
            transport.become(HealthState.DOWN)
            await trio.sleep(1)
        assert transport.wanted == 2


async def test_one_that_nothing_else_stands_in_for_is_left_to_itself(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = FakeTransport(state=HealthState.DOWN)
    async with watching(Lookout(Memory(60)), transport):
        await trio.sleep(10 * PROBE_INTERVAL)
        assert transport.wanted == 0


async def test_it_is_told_when_connections_go_back(autojump_clock: trio.testing.MockClock) -> None:
    told: list[Event] = []
    lookout = Lookout(Memory(60), told.append, frozenset({"dev"}))
    transport = FakeTransport()
    async with watching(lookout, transport):
        transport.become(HealthState.DOWN)
        await trio.sleep(1)
        transport.become(HealthState.READY)
        await trio.sleep(59)
        assert lookout.runner("dev", transport).rests
        assert told == []
        await trio.sleep(2)
        assert not lookout.runner("dev", transport).rests
        assert told == [Notice("dev", "ready again: new connections go back to it")]


async def test_one_that_comes_and_goes_unasked_is_seen_to(autojump_clock: trio.testing.MockClock) -> None:
    lookout, transport = Lookout(Memory(60)), FakeTransport()
    async with watching(lookout, transport):
        transport.become(HealthState.DOWN)
        await trio.sleep(1)
        transport.become(HealthState.READY)
        await trio.sleep(50)
        transport.become(HealthState.STARTING)
        await trio.sleep(1)
        transport.become(HealthState.READY)
        await trio.sleep(50)
        assert lookout.runner("dev", transport).rests


async def hurried(attempt: Attempt, state: HealthState) -> bool:
    """Return whether *attempt* has less time once its upstream is in *state*."""
    lookout, transport = Lookout(Memory(60)), FakeTransport()
    async with watching(lookout, transport):
        lookout.begin(transport, attempt)
        assert lookout.attempts(transport) == 1
        transport.become(state)
        await trio.testing.wait_all_tasks_blocked()
        lookout.end(transport, attempt)
        assert lookout.attempts(transport) == 0
    if attempt.scope.deadline < math.inf:
        assert attempt.scope.deadline == pytest.approx(trio.current_time() + STAGGER)
        return True
    return False


async def test_an_attempt_is_hurried_where_another_upstream_could_take_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def no() -> bool:
        return False

    spent = EarlyBytes(b"once")
    spent.sent = True
    assert await hurried(Attempt(trio.CancelScope(), yes, None), HealthState.DOWN)
    assert await hurried(Attempt(trio.CancelScope(), yes, EarlyBytes(b"")), HealthState.STARTING)
    assert not await hurried(Attempt(trio.CancelScope(), yes, None), HealthState.READY)
    assert not await hurried(Attempt(trio.CancelScope(), no, None), HealthState.DOWN)
    assert not await hurried(Attempt(trio.CancelScope(), yes, spent), HealthState.DOWN)


@attrs.define(eq=False)
class ProvableFake(FakeTransport):
    """Gives a sign of life after *silence* seconds."""

    silence: float = 0.0
    proofs: int = 0

    async def prove(self) -> None:
        self.proofs += 1
        await trio.sleep(self.silence)


def yes() -> bool:
    return True


@pytest.mark.parametrize(("silence", "left_at"), [(math.inf, PROVE_AFTER + PROVE_LIMIT), (0.1, math.inf)])
async def test_a_connection_that_takes_long_leaves_a_path_that_is_dead(
    autojump_clock: trio.testing.MockClock, silence: float, left_at: float
) -> None:
    """Not one through which anything comes: its destination may be slow."""
    lookout, transport = Lookout(Memory(60)), ProvableFake(silence=silence)
    assert isinstance(transport, ProvableTransport)
    attempts = [Attempt(trio.CancelScope(), yes, None) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lookout.run)
        began = trio.current_time()
        for attempt in attempts:
            lookout.begin(transport, attempt)
        await trio.sleep(5)
        assert transport.proofs == 1
        assert [attempt.scope.deadline - began for attempt in attempts] == pytest.approx([left_at] * 3)
        nursery.cancel_scope.cancel()


async def test_what_nothing_else_could_carry_proves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    lookout, transport, other = Lookout(Memory(60)), ProvableFake(silence=math.inf), FakeTransport()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lookout.run)
        lookout.begin(transport, Attempt(trio.CancelScope(), lambda: False, None))
        lookout.begin(transport, Attempt(trio.CancelScope(), lambda: False, None, has_others=False))
        lookout.begin(other, Attempt(trio.CancelScope(), yes, None))
        short = Attempt(trio.CancelScope(), yes, None)
        lookout.begin(transport, short)
        await trio.sleep(PROVE_AFTER / 2)
        lookout.end(transport, short)
        await trio.sleep(5)
        assert transport.proofs == 0
        nursery.cancel_scope.cancel()

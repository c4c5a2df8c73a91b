"""Two servers, one store: what users do and have at one is known at the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio
from trio.testing import MockClock

from tunnel_relay.background import open_background
from tunnel_relay.policy.access import Access, Held
from tunnel_relay.policy.rate import Rate, RateLimits
from tunnel_relay.server.sharing import AGAIN, LOOK, MOST_TOLD, ROUND, Sharing
from tunnel_relay.server.store import Memory, MemoryStore, StoreAwayError

SOON = 2 * ROUND


class FailingStore(MemoryStore):
    """A store that is away when it should be, and may be slow."""

    away = False
    seconds = 0.0
    taken = 0

    async def take(self, bucket: str, key: str, rate: Rate, tokens: int = 1) -> float:
        await trio.sleep(self.seconds)
        self.taken += tokens
        return await super().take(bucket, key, rate, tokens)

    async def hold(self, user: str, held: Held, count: int) -> int:
        if self.away:
            raise StoreAwayError("away")
        return await super().hold(user, held, count)


@attrs.define(eq=False)
class Side:
    """One server."""

    store: FailingStore
    rates: RateLimits = attrs.field(factory=lambda: RateLimits({}))
    access: Access = attrs.field(factory=Access)
    revoked: frozenset[str] = frozenset()
    sharing: Sharing = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sharing = Sharing(self.store, self.rates, self.access, self.revoke)

    def revoke(self, tokens: frozenset[str]) -> None:
        self.revoked = tokens


@asynccontextmanager
async def open_sides() -> AsyncGenerator[tuple[Side, Side]]:
    memory = Memory()
    one, other = (Side(FailingStore(name, memory)) for name in "ab")
    async with open_background() as nursery:
        for side in (one, other):
            nursery.start_soon(side.sharing.run)
        await trio.sleep(SOON)
        yield one, other


async def test_who_has_asked_for_all_elsewhere_waits_here(autojump_clock: MockClock) -> None:
    async with open_sides() as (one, other):
        now = trio.current_time()
        while not one.rates.upgrade("alice", "", now):
            pass
        await trio.sleep(SOON)
        now = trio.current_time()
        # The first one tells the other server of her; then it knows what she had.
        assert not other.rates.upgrade("alice", "", now)
        await trio.sleep(SOON)
        assert other.rates.upgrade("alice", "", trio.current_time())
        assert not other.rates.open("alice", "", now)
        assert not other.rates.upgrade("bob", "", now)
        await trio.sleep(10)
        assert not other.rates.upgrade("alice", "", trio.current_time())


async def test_what_is_refused_takes_nothing(autojump_clock: MockClock) -> None:
    async with open_sides() as (one, other):
        for _ in range(1000):
            one.rates.pace_open("alice", "", trio.current_time())
        await trio.sleep(SOON)
        other.rates.pace_open("alice", "", trio.current_time())
        await trio.sleep(SOON)
        # A burst, and as much again on credit: paid back in a second.
        await trio.sleep(1.1)
        assert not other.rates.open("alice", "", trio.current_time())


async def test_what_a_user_has_elsewhere_counts_here(autojump_clock: MockClock) -> None:
    most = Access().tier("").most[Held.SESSIONS]
    async with open_sides() as (one, other):
        for _ in range(most - 1):
            assert one.access.take("alice", "", Held.SESSIONS) is None
        await trio.sleep(SOON)
        assert other.access.take("alice", "", Held.SESSIONS) is None
        await trio.sleep(SOON)
        denial = other.access.take("alice", "", Held.SESSIONS)
        assert denial is not None
        assert denial.detail == f"{most} sessions are the most that the tier allows at a time"
        assert other.access.take("bob", "", Held.SESSIONS) is None
        assert other.access.take("alice", "", Held.STREAMS) is None
        # The relay's own connections are nobody else's.
        for side in (one, other):
            for _ in range(3):
                assert side.access.take("alice", "", Held.SSH_CONNECTIONS) is None
            await trio.sleep(SOON)
        one.access.give_back("alice", Held.SESSIONS)
        # What has changed elsewhere only is heard of when all is said again.
        await trio.sleep(20)
        assert other.access.take("alice", "", Held.SESSIONS) is None


async def test_a_server_that_is_gone_has_nothing(autojump_clock: MockClock) -> None:
    memory = Memory()
    one, other = (Side(FailingStore(name, memory)) for name in "ab")
    most = Access().tier("").most[Held.SESSIONS]
    async with open_background() as nursery:
        nursery.start_soon(other.sharing.run)
        await trio.sleep(SOON)
        with trio.move_on_after(1):
            for _ in range(most):
                one.access.take("alice", "", Held.SESSIONS)
            await one.sharing.run()
        assert other.access.take("alice", "", Held.SESSIONS) is None
        await trio.sleep(SOON)
        assert other.access.take("alice", "", Held.SESSIONS) is not None
        await trio.sleep(90)
        assert other.access.take("alice", "", Held.SESSIONS) is None


async def test_tokens_are_revoked_everywhere(autojump_clock: MockClock) -> None:
    async with open_sides() as (one, other):
        one.sharing.revoke_here(frozenset({"a"}))
        assert one.revoked == {"a"}
        await trio.sleep(LOOK + SOON)
        assert other.revoked == {"a"}
        other.sharing.revoke_here(frozenset({"b"}))
        assert other.revoked == {"a", "b"}
        await trio.sleep(LOOK + SOON)
        assert one.revoked == {"a", "b"}


async def test_many_buckets_do_not_delay_what_is_revoked(autojump_clock: MockClock) -> None:
    seconds = 0.01
    count = 3 * MOST_TOLD
    async with open_sides() as (one, other):
        one.store.seconds = seconds
        for number in range(count):
            one.rates.upgrade(f"user {number}", "", trio.current_time())
        await trio.sleep(SOON)
        other.sharing.revoke_here(frozenset({"a"}))
        await trio.sleep(LOOK + MOST_TOLD * seconds + SOON)
        assert one.revoked == {"a"}
        # All are told in the end.
        await trio.sleep(count * seconds + 4 * ROUND)
        assert one.store.taken == count


async def test_without_a_store_a_server_counts_what_it_has(autojump_clock: MockClock) -> None:
    most = Access().tier("").most[Held.SESSIONS]
    async with open_sides() as (one, other):
        for _ in range(most):
            assert one.access.take("alice", "", Held.SESSIONS) is None
        await trio.sleep(SOON)
        assert other.access.take("alice", "", Held.SESSIONS) is None
        await trio.sleep(SOON)
        assert other.access.take("alice", "", Held.SESSIONS) is not None
        other.store.away = True
        other.access.give_back("alice", Held.SESSIONS)
        await trio.sleep(SOON)
        assert other.access.take("alice", "", Held.SESSIONS) is None
        assert other.access.take("alice", "", Held.SESSIONS) is None
        other.store.away = False
        await trio.sleep(AGAIN + SOON)
        assert other.access.take("alice", "", Held.SESSIONS) is not None


async def test_who_leaves_says_so(autojump_clock: MockClock) -> None:
    most = Access().tier("").most[Held.SESSIONS]
    async with open_sides() as (one, other):
        for _ in range(most):
            assert one.access.take("alice", "", Held.SESSIONS) is None
        await trio.sleep(SOON)
        assert await other.store.hold("alice", Held.SESSIONS, 1) == most
        await one.sharing.leave()
        assert await other.store.hold("alice", Held.SESSIONS, 1) == 0

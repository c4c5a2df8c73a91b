"""What holds for every store: the one in memory, and the one in a real Redis."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

import attrs
import pytest
import trio

from tests.support.redis_server import needs_redis, open_redis
from tunnel_relay.policy.access import Held
from tunnel_relay.policy.lease import MOST_AGENTS, AgentKey, Leases
from tunnel_relay.policy.rate import Rate
from tunnel_relay.server.redis_store import open_redis_store
from tunnel_relay.server.store import Memory, MemoryStore, Store

# Seconds that leases last here.
LENGTH = 1.0

NAS = AgentKey("alice", "nas", "one")
RATE = Rate(10, 1.0)


@asynccontextmanager
async def open_memory_stores(count: int, length: float = LENGTH) -> AsyncGenerator[list[Store]]:
    memory = Memory(Leases(length))
    yield [MemoryStore(str(number), memory) for number in range(count)]


@asynccontextmanager
async def open_redis_stores(count: int, length: float = LENGTH) -> AsyncGenerator[list[Store]]:
    async with open_redis() as redis, AsyncExitStack() as stack:

        async def enter(number: int) -> Store:
            store = open_redis_store(
                redis.url, str(number), prefix="test:", length=length, tell=lambda _trouble: None
            )
            return await stack.enter_async_context(store)

        yield [await enter(number) for number in range(count)]


Open = Callable[..., AbstractAsyncContextManager[list[Store]]]


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
def open_stores(request: pytest.FixtureRequest) -> Open:
    """How to have the stores of several servers, which have all in common."""
    return open_memory_stores if request.param == "memory" else open_redis_stores


@pytest.fixture
async def stores(open_stores: Open) -> AsyncGenerator[list[Store]]:
    """Two servers' stores."""
    async with open_stores(2) as opened:
        yield opened


async def eventually(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Wait until the answer is the one that is *wanted*; the caller has the deadline."""
    while await ask() != wanted:  # noqa: ASYNC110  # what is waited for has no events
        await trio.sleep(0.01)


async def test_a_bucket_is_everybody_s(stores: list[Store]) -> None:
    one, other = stores
    assert await one.take("opens", "alice", RATE) == pytest.approx(0.1, abs=0.001)
    assert await other.take("opens", "alice", RATE, 9) == pytest.approx(1.0, abs=0.1)
    assert await one.take("opens", "alice", RATE, 100) == pytest.approx(11.0, abs=0.2)
    # Others are others.
    assert await one.take("requests", "alice", RATE) == pytest.approx(0.1, abs=0.001)
    assert await one.take("opens", "bob", RATE) == pytest.approx(0.1, abs=0.001)


async def test_a_bucket_fills(stores: list[Store]) -> None:
    one, other = stores
    await one.take("opens", "alice", RATE, 2)
    await trio.sleep(0.25)
    assert await other.take("opens", "alice", RATE) == pytest.approx(0.1, abs=0.001)


async def test_an_agent_is_found_by_others(stores: list[Store]) -> None:
    one, other = stores
    lease = await one.register(NAS, "wss://one:1")
    assert lease is not None
    [found] = await other.agents("alice")
    assert (found.key, found.holder, found.fence) == (NAS, "wss://one:1", lease.fence)
    assert await other.agents("bob") == []
    assert await one.unregister(lease)
    assert await other.agents("alice") == []
    assert not await one.unregister(lease)


async def test_the_latest_is_first(stores: list[Store]) -> None:
    for instance in ("one", "two", "three"):
        assert await stores[0].register(AgentKey("alice", "nas", instance), "wss://one:1")
    assert await stores[1].register(NAS, "wss://other:1")
    found = await stores[0].agents("alice")
    assert [lease.key.instance for lease in found] == ["one", "three", "two"]


async def test_who_was_followed_can_do_nothing(stores: list[Store]) -> None:
    """The agent has dialed another server."""
    one, other = stores
    old = await one.register(NAS, "wss://one:1")
    new = await other.register(NAS, "wss://other:1")
    assert old is not None
    assert new is not None
    assert new.fence > old.fence
    assert await one.renew(old) is None
    assert not await one.unregister(old)
    renewed = await other.renew(new)
    assert renewed is not None
    assert renewed.fence == new.fence
    assert [lease.holder for lease in await one.agents("alice")] == ["wss://other:1"]


async def test_others_learn_that_an_agent_is_leaving(stores: list[Store]) -> None:
    one, other = stores
    lease = await one.register(NAS, "wss://one:1")
    assert lease is not None
    for leaving in (True, False):
        lease = await one.renew(attrs.evolve(lease, leaving=leaving))
        assert lease is not None
        [found] = await other.agents("alice")
        assert (found.holder, found.fence, found.leaving) == ("wss://one:1", lease.fence, leaving)
    assert await one.unregister(lease)


async def test_what_is_not_renewed_ends(stores: list[Store]) -> None:
    one, other = stores
    lease = await one.register(NAS, "wss://one:1")
    assert lease is not None
    with trio.fail_after(10):
        for _ in range(3):
            await trio.sleep(LENGTH / 2)
            assert await one.renew(lease)
        assert await other.agents("alice")
        await eventually(lambda: other.agents("alice"), [])
    # It was there all the time, and its server did not come to say so.
    again = await one.renew(lease)
    assert again is not None
    assert again.fence > lease.fence
    assert [found.fence for found in await other.agents("alice")] == [again.fence]


async def test_a_user_has_so_many_agents(open_stores: Open) -> None:
    keys = [AgentKey("alice", "nas", str(number)) for number in range(MOST_AGENTS + 1)]
    async with open_stores(1, 60.0) as [store]:
        for key in keys[:-1]:
            assert await store.register(key, "wss://one:1")
        assert await store.register(keys[-1], "wss://one:1") is None
        # Who is there may always come back, and others have room of their own.
        again = await store.register(keys[0], "wss://one:1")
        assert again is not None
        assert await store.register(NAS, "wss://one:1") is None
        assert await store.register(AgentKey("bob", "nas", "one"), "wss://one:1")
        assert await store.unregister(again)
        assert await store.register(NAS, "wss://one:1")


async def test_agents_that_have_ended_do_not_count(stores: list[Store]) -> None:
    store = stores[0]
    for number in range(MOST_AGENTS):
        assert await store.register(AgentKey("alice", "nas", str(number)), "wss://one:1")
    await trio.sleep(LENGTH)
    assert await store.register(NAS, "wss://one:1")
    assert [lease.key for lease in await store.agents("alice")] == [NAS]


async def test_tokens_are_revoked_for_everybody(stores: list[Store]) -> None:
    one, other = stores
    assert await other.revoked() == frozenset()
    await one.revoke(["a", "b"])
    assert await other.revoked() == {"a", "b"}
    await other.revoke([f"c{number}" for number in range(2500)])
    assert len(await one.revoked()) == 2502
    assert await one.revoked() == await other.revoked()
    await one.revoke([])
    assert len(await one.revoked()) == 2502


async def test_what_users_have_is_counted_together(stores: list[Store]) -> None:
    one, other = stores
    assert await one.hold("alice", Held.SESSIONS, 3) == 0
    assert await other.hold("alice", Held.SESSIONS, 4) == 3
    assert await one.hold("alice", Held.SESSIONS, 0) == 4
    assert await other.hold("alice", Held.SESSIONS, 5) == 0
    assert await one.hold("alice", Held.STREAMS, 1) == 0
    assert await one.hold("bob", Held.SESSIONS, 1) == 0


@needs_redis
async def test_what_a_server_had_that_is_gone_is_not_counted() -> None:
    async with open_redis_stores(2) as (one, other):
        await one.hold("alice", Held.SESSIONS, 3)
        with trio.fail_after(5):
            await eventually(partial(other.hold, "alice", Held.SESSIONS, 1), 0)


async def test_names_are_no_syntax(stores: list[Store]) -> None:
    """Users and agents may be called what they like."""
    one, other = stores
    user = "a}:agents {b\n*"
    key = AgentKey(user, "n a s", "1 2 3")
    assert await one.register(key, "wss://[::1]:1")
    [found] = await other.agents(user)
    assert (found.key, found.holder) == (key, "wss://[::1]:1")
    assert await one.hold(user, Held.SESSIONS, 2) == 0
    assert await other.hold(user, Held.SESSIONS, 1) == 2

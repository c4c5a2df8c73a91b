"""A Redis that is not there, hangs, forgets everything, or comes back; what it does is in test_store."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.support.redis_server import RedisServer, needs_redis, open_redis
from tunnel_relay.policy.access import Held
from tunnel_relay.policy.lease import AgentKey
from tunnel_relay.policy.rate import Rate
from tunnel_relay.server import redis_store
from tunnel_relay.server.redis_store import LIMIT, open_redis_store
from tunnel_relay.server.store import Store, StoreAwayError

pytestmark = needs_redis

NAS = AgentKey("alice", "nas", "one")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "LIMIT", 1.0)
    monkeypatch.setattr(redis_store, "REST", 0.5)


async def wait_back(store: Store) -> None:
    """Ask until there is an answer."""
    while True:
        try:
            await store.agents("alice")
        except StoreAwayError:
            await trio.sleep(0.02)
        else:
            return


async def test_a_redis_that_comes_later(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    redis = RedisServer()
    try:
        async with open_redis_store(redis.url, "one", tell=told.append) as store:
            for _ in range(3):
                with pytest.raises(StoreAwayError, match="connection"):
                    await store.register(NAS, "wss://one:1")
            assert "connection" in store.trouble
            await redis.start()
            with trio.fail_after(5):
                await wait_back(store)
            assert await store.register(NAS, "wss://one:1")
            assert store.trouble == ""
            # It is told once, not with each call, and not by its library.
            assert not caplog.records
            assert [bool(trouble) for trouble in told] == [True, False]
    finally:
        redis.stop()


async def test_a_redis_that_hangs_costs_little() -> None:
    async with open_redis() as redis, open_redis_store(redis.url, "one", tell=lambda _trouble: None) as store:
        assert await store.agents("alice") == []
        redis.freeze()
        began = trio.current_time()
        with pytest.raises(StoreAwayError, match="has not answered in"):
            await store.agents("alice")
        assert trio.current_time() - began < LIMIT
        began = trio.current_time()
        for _ in range(10):
            with pytest.raises(StoreAwayError):
                await store.agents("alice")
        # It rests.
        assert trio.current_time() - began < 1.0
        redis.freeze(frozen=False)
        with trio.fail_after(5):
            await wait_back(store)


async def test_a_redis_that_has_forgotten_everything() -> None:
    async with open_redis() as redis, open_redis_store(redis.url, "one", tell=lambda _trouble: None) as store:
        lease = await store.register(NAS, "wss://one:1")
        await store.revoke(["stolen"])
        assert await store.revoked() == {"stolen"}
        assert lease is not None
        redis.stop()
        with pytest.raises(StoreAwayError):
            await store.agents("alice")
        await redis.start()
        with trio.fail_after(5):
            await wait_back(store)
        assert await store.agents("alice") == []
        assert await store.renew(lease)
        [found] = await store.agents("alice")
        assert found.holder == "wss://one:1"
        assert await store.revoked() == frozenset()


async def test_no_password_is_told() -> None:
    url = "redis://:hunter2@127.0.0.1:1/0"
    async with open_redis_store(url, "one", tell=lambda _trouble: None) as store:
        with pytest.raises(StoreAwayError) as caught:
            await store.agents("alice")
        assert "hunter2" not in str(caught.value)
        assert "hunter2" not in repr(store)


async def test_all_keys_are_ours_and_end() -> None:
    async with (
        open_redis() as redis,
        open_redis_store(redis.url, "one", prefix="lab:", tell=lambda _trouble: None) as store,
    ):
        await store.register(NAS, "wss://one:1")
        await store.take("opens", "alice", Rate(10, 1.0))
        await store.revoke(["stolen"])
        await store.hold("alice", Held.STREAMS, 1)
        keys = await store.redis.keys("*")
        assert len(keys) == 6
        for key in keys:
            assert key.startswith("lab:{")
            assert await store.redis.pttl(key) > 0


async def test_who_comes_with_many_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """All agents at once, when a server has been started anew."""
    monkeypatch.setattr(redis_store, "LIMIT", 10.0)
    monkeypatch.setattr(redis_store, "QUEUE", 60.0)
    told: list[str] = []
    async with open_redis() as redis, open_redis_store(redis.url, "one", tell=told.append) as store:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(1500):
                    nursery.start_soon(store.register, AgentKey(f"user {number}", "nas", "1"), "wss://one:1")
    assert told == []


async def test_who_looks_up_much_delays_no_agent() -> None:
    left = 500

    async def look_up(store: Store, number: int) -> None:
        nonlocal left
        await store.agents(f"user {number}")
        left -= 1

    async with open_redis() as redis, open_redis_store(redis.url, "one", tell=lambda _trouble: None) as store:
        await store.agents("alice")
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                redis.freeze()
                for number in range(left):
                    nursery.start_soon(look_up, store, number)
                await trio.testing.wait_all_tasks_blocked()
                redis.freeze(frozen=False)
                assert await store.register(NAS, "wss://one:1")
                assert left > 100


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "LOOK_UPS", 1)
    monkeypatch.setattr(redis_store, "QUEUE", 0.05)
    async with open_redis() as redis, open_redis_store(redis.url, "one", tell=lambda _trouble: None) as store:
        await store.agents("alice")
        redis.freeze()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(StoreAwayError, match="has not answered"):
                    await store.agents("alice")

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(StoreAwayError, match="no turn"):
                await store.agents("bob")


async def test_what_the_block_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="plainly"):
        async with open_redis_store("redis://127.0.0.1:1/0", "one", tell=lambda _trouble: None):
            raise ValueError("plainly")


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1",
        "redis://127.0.0.1:1/x",
        "redis://127.0.0.1:1/0?no=such",
        "rediss://127.0.0.1:1/0",
        "redis://nowhere.invalid:1",
        "unix:///no/such/socket",
    ],
)
async def test_a_redis_that_cannot_be_reached_is_away(url: str) -> None:
    async with open_redis_store(url, "one", tell=lambda _trouble: None) as store:
        with pytest.raises(StoreAwayError):
            await store.agents("alice")

"""Clients at one server, agents at another: whoever moves or dies, streams go on."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from tests.support.exchanges import exchange
from tests.support.redis_server import needs_redis, open_redis
from tests.support.relay_cluster import open_cluster_world
from tests.support.relay_ports import Carrier
from tests.support.tunnels import eventually
from tunnel_relay.agent.offering import Offering
from tunnel_relay.background import open_background
from tunnel_relay.client import reaching
from tunnel_relay.policy.lease import AgentKey, Lease, Leases
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.greetings import Hello, read_go_away, write
from tunnel_relay.server import cluster as cluster_module
from tunnel_relay.server.redis_store import open_redis_store
from tunnel_relay.server.store import Memory, MemoryStore, Store, StoreAwayError
from tunnel_relay.server.switch import Port

SECONDS = 30


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "PAUSE", 0.01)
    monkeypatch.setattr(cluster_module, "AGAIN", 0.01)


def memory_stores(count: int, length: float = 45.0) -> list[Store]:
    memory = Memory(Leases(length))
    return [MemoryStore(str(number), memory) for number in range(count)]


@asynccontextmanager
async def open_memory_stores(count: int) -> AsyncGenerator[list[Store]]:
    yield memory_stores(count)


@asynccontextmanager
async def open_redis_stores(count: int) -> AsyncGenerator[list[Store]]:
    async with open_redis() as redis, AsyncExitStack() as stack:
        opening = [
            open_redis_store(redis.url, str(number), tell=lambda _trouble: None) for number in range(count)
        ]
        yield [await stack.enter_async_context(store) for store in opening]


async def wait_registered(store: Store, address: str) -> None:
    """Wait until alice's agent is known to be at *address*, and nowhere else."""
    while [lease.holder for lease in await store.agents("alice")] != [address]:  # noqa: ASYNC110
        await trio.sleep(0.01)


Open = Callable[[int], AbstractAsyncContextManager[list[Store]]]


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
def open_stores(request: pytest.FixtureRequest) -> Open:
    return open_memory_stores if request.param == "memory" else open_redis_stores


@pytest.mark.parametrize("name", ["nas", ""])
async def test_an_agent_at_another_server_is_reached(open_stores: Open, name: str) -> None:
    with trio.fail_after(SECONDS):
        async with open_stores(2) as stores, open_cluster_world(stores, name=name) as world:
            data = b"hello" * 100_000
            assert await world.exchange(data) == data
            assert len(world.servers[1].told) == 1


@pytest.mark.parametrize("seed", range(2))
async def test_streams_outlive_moves_of_both_ends(open_stores: Open, seed: int) -> None:
    rng = random.Random(seed)
    data = [rng.randbytes(300_000) for _ in range(6)]
    moves = 0
    with trio.fail_after(SECONDS):
        async with (
            open_stores(3) as stores,
            open_cluster_world(stores) as world,
            trio.open_nursery() as nursery,
        ):

            async def weather() -> None:
                nonlocal moves
                while True:
                    for _ in range(rng.randrange(200)):
                        await trio.lowlevel.checkpoint()
                    rng.choice((world.client, world.agent)).move(rng.choice(world.servers))
                    moves += 1
                    await trio.sleep(0.05)

            nursery.start_soon(weather)
            async with trio.open_nursery() as transfers:

                async def transfer(content: bytes) -> None:
                    assert await world.exchange(content) == content

                for content in data:
                    transfers.start_soon(transfer, content)
            assert moves > 2
            nursery.cancel_scope.cancel()


async def test_nobody_reaches_another_user_s_agent(open_stores: Open) -> None:
    with trio.fail_after(SECONDS):
        async with open_stores(2) as stores, open_cluster_world(stores, user="mallory") as world:
            stream = world.reaching.open_stream("echo")
            with trio.move_on_after(0.5):
                await stream.wait_accepted()
                pytest.fail("reached")
            assert world.reaching.why_not == "no agent 'nas' is connected, nor any other of 'mallory'"
            assert world.servers[1].told == []


@pytest.mark.parametrize("pools", [True, False])
async def test_without_pools_the_latest_agent_is_the_one(pools: bool) -> None:
    """There is one at either server; the later one is at the other."""
    with trio.fail_after(SECONDS):
        async with open_cluster_world(memory_stores(2)) as world:
            there, here = world.servers
            here.switch.pools = lambda _tier: pools
            earlier = Port(here.switch, "alice", agent="nas", instance="two")
            earlier.link = Carrier()
            here.switch.register(earlier)
            async with open_background() as nursery:
                nursery.start_soon(here.cluster.stay, earlier)
                await trio.testing.wait_all_tasks_blocked()
                world.agent.move(there)
                while (await here.cluster.store.agents("alice"))[0].key.instance != "one":  # noqa: ASYNC110
                    await trio.sleep(0.01)
                world.reaching.begin().lose("anew")
                await trio.testing.wait_all_tasks_blocked()
                world.reaching.begin()
                if pools:
                    await eventually(lambda: earlier.sessions)
                else:
                    assert await world.exchange(b"x") == b"x"
                    assert not earlier.sessions


@pytest.mark.parametrize("pools", [True, False])
async def test_an_agent_that_is_leaving_begins_nothing_at_other_servers(
    open_stores: Open, pools: bool
) -> None:
    """It is the latest; what it has goes on, though its client comes anew."""
    with trio.fail_after(SECONDS):
        async with open_stores(2) as stores, open_cluster_world(stores) as world:
            there, here = world.servers
            here.switch.pools = lambda _tier: pools
            stream = world.reaching.open_stream("echo")
            await stream.wait_accepted()
            assert isinstance(world.agent.end, Offering)
            world.agent.end.drain("that was it")
            while not (await stores[1].agents("alice"))[0].leaving:  # noqa: ASYNC110
                await trio.sleep(0.01)
            world.client.move(here)
            assert await exchange(stream, b"on") == b"on"
            client = Port(here.switch, "alice")
            client.link = near = Carrier()
            hello = Hello(agent="nas", token=f"{1:032}", fence=1)
            client.heed(Frame(FrameType.HELLO, 1, payload=write(hello)))
            await eventually(lambda: near.own)
            [frame] = near.own
            assert read_go_away(frame.payload).detail == "the agent 'nas' is being shut down"
            earlier = Port(there.switch, "alice", agent="nas", instance="two")
            earlier.link = Carrier()
            there.switch.register(earlier)
            async with open_background() as nursery:
                nursery.start_soon(there.cluster.stay, earlier)
                while len(await stores[1].agents("alice")) < 2:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                client.heed(Frame(FrameType.HELLO, 1, payload=write(hello)))
                await eventually(lambda: earlier.sessions)


async def test_a_link_that_was_followed_by_another_one_is_closed() -> None:
    """The agent has come to another server; the first one hears of it when it renews."""
    length = 2.0
    async with open_cluster_world(memory_stores(2, length), length=length) as world:
        with trio.fail_after(SECONDS):
            first, other = world.servers
            await eventually(lambda: first.switch.find("alice", "nas", None))
            before = world.agent.scope
            [lease] = await other.cluster.store.agents("alice")
            taken = await other.cluster.store.register(lease.key, other.cluster.address)
            assert taken is not None
            await eventually(lambda: before.cancel_called)


async def test_an_agent_that_leaves_is_known_to_be_gone() -> None:
    async with open_cluster_world(memory_stores(2)) as world:
        with trio.fail_after(SECONDS):
            assert await world.exchange(b"x") == b"x"
            store = world.servers[0].cluster.store
            world.agent.move(world.servers[1])
            await wait_registered(store, world.servers[1].cluster.address)
            assert await world.exchange(b"y") == b"y"


class AwayStore(MemoryStore):
    """A store that can be away."""

    away = False

    async def _asked(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise StoreAwayError("away")

    async def agents(self, user: str) -> list[Lease]:
        await self._asked()
        return await super().agents(user)

    async def register(self, key: AgentKey, holder: str) -> Lease | None:
        await self._asked()
        return await super().register(key, holder)


async def test_without_its_store_a_server_serves_what_it_knows() -> None:
    memory = Memory()
    stores = [AwayStore(str(number), memory) for number in range(2)]
    with trio.fail_after(SECONDS):
        async with open_cluster_world(list[Store](stores)) as world:
            assert await world.exchange(b"before") == b"before"
            for store in stores:
                store.away = True
            # What is linked goes on; the client comes anew to a server that has asked before.
            assert await world.exchange(b"on") == b"on"
            world.client.move(world.servers[1])
            assert await world.exchange(b"known") == b"known"
            # Both at one server: nobody has to be asked.
            world.agent.move(world.servers[1])
            assert await world.exchange(b"here") == b"here"
            # And it is registered when there is a store again.
            for store in stores:
                store.away = False
            await wait_registered(stores[0], world.servers[1].cluster.address)
            world.client.move(world.servers[0])
            assert await world.exchange(b"again") == b"again"


class SlowStore(MemoryStore):
    """A store that says nothing before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may = 0, trio.Event()

    async def agents(self, user: str) -> list[Lease]:
        self.asked += 1
        await self.may.wait()
        return await super().agents(user)


async def test_a_client_that_asks_again_and_again_is_looked_up_for_once() -> None:
    """What it has asked for last is what it gets."""
    store = SlowStore()
    with trio.fail_after(SECONDS):
        async with open_cluster_world([store]) as world:
            await trio.testing.wait_all_tasks_blocked()
            [server] = world.servers
            store.asked = 0
            client, near = Port(server.switch, "alice"), Carrier()
            client.link = near
            for number in range(100):
                for label in (1, 2):
                    hello = Hello(agent=f"none{number}", token=f"{label:032}", fence=number + 1)
                    client.heed(Frame(FrameType.HELLO, label, payload=write(hello)))
            await trio.testing.wait_all_tasks_blocked()
            assert store.asked == 2
            store.may.set()
            await eventually(lambda: len(near.own) == 2)
            assert {frame.session for frame in near.own} == {1, 2}
            for frame in near.own:
                assert read_go_away(frame.payload).detail.startswith("no agent 'none99' is connected")
            assert store.asked <= 4

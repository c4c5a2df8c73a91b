"""Two relay servers by their files, with a real Redis: whom they serve together, and what they tell."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.profile.relay_model import RelayServer
from session_proxy.supervision.lifecycle import Lifecycle
from session_proxy.supervision.relay_cluster import read_proofs
from session_proxy.supervision.service import ServiceSettings, Shell
from tests.support.live_sessions import SETTINGS
from tests.support.redis_server import RedisServer, needs_redis, open_redis
from tests.support.relay_clients import open_client
from tests.support.relay_cluster import echo
from tests.support.relay_daemon import Served, load_relay, open_relay_daemon
from tests.support.relay_tokens import make_certificate, make_token
from tests.support.tunnels import eventually, open_destination
from tunnel_relay.agent.offering import Offering
from tunnel_relay.background import open_background
from tunnel_relay.errors import LinkLostError, WebSocketClosedError, WebSocketRejectedError
from tunnel_relay.link import Link
from tunnel_relay.policy.rate import Rate
from tunnel_relay.server import redis_store, sharing

SECONDS = 90


def cluster_text(url: str) -> str:
    return (
        f'[store]\nredis = "{url}"\nprefix = "test:"\n'
        '[cluster]\nlisten = "127.0.0.1:0"\ncertificate = "cert.pem"\nkey = "key.pem"\nca = "cert.pem"\n'
    )


def load_clustered(folder: Path, url: str, *, more: str = "", jwt: str = "") -> RelayServer:
    """Return one server of several; all have the same certificate, which is their authority's."""
    if not (folder / "cert.pem").exists():
        make_certificate().write(folder)
    return load_relay(folder, jwt=jwt, more=cluster_text(url) + more)


@asynccontextmanager
async def open_servers(
    tmp_path: Path, redis: RedisServer, *, more: str = "", jwt: str = ""
) -> AsyncGenerator[tuple[Served, Served]]:
    """Run two servers, each with a folder of its own."""
    certificate = make_certificate()
    async with AsyncExitStack() as stack:
        served: list[Served] = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "revoked.txt").touch()
            certificate.write(folder)
            server = load_clustered(folder, redis.url, more=more, jwt=jwt)
            served.append(await stack.enter_async_context(open_relay_daemon(server)))
        yield served[0], served[1]


@asynccontextmanager
async def open_agent(served: Served) -> AsyncGenerator[Offering]:
    """Be alice's agent, with an echo service, at a server."""
    async with (
        open_destination(echo) as port,
        open_background() as nursery,
        served.link(make_token("alice"), "?agent=nas&instance=one") as websocket,
    ):
        offering = Offering(nursery, {"echo": ("127.0.0.1", port)}, "one", SETTINGS)
        link = Link(websocket, offering.heed)
        offering.attach(link)

        async def run() -> None:
            with suppress(LinkLostError):
                await link.run()

        nursery.start_soon(run)
        yield offering


async def answers(served: Served) -> None:
    """See to it that alice's agent is reached through a server."""
    async with open_client(served.url, agent="nas") as reaching:
        stream = reaching.open_stream("echo")
        await stream.wait_accepted()
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.aclose()


def readiness(served: Served) -> str:
    """Return what /readyz says."""
    lifecycle = Lifecycle()
    lifecycle.become_ready([str(served.address)])
    settings = ServiceSettings(name="relay", drain=1)
    shell = Shell(daemon=served.daemon, settings=settings, lifecycle=lifecycle, started=0.0)
    return str(shell.readiness())


@needs_redis
async def test_an_agent_is_reached_through_every_server(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_redis() as redis, open_servers(tmp_path, redis) as (one, two), open_agent(one):
            for served in (one, two):
                await answers(served)
            line = await two.line("peer linked")
            assert line["context"] == {"peer": str((await one.line("cluster"))["address"])}
            assert (await one.line("peer linked"))["context"] == {"peer": "relay"}
            assert [served.metrics()["sproxy_relay_peers"] for served in (one, two)] == [0, 1]


@needs_redis
async def test_redis_goes_and_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((redis_store, "REST"), (sharing, "AGAIN")):
        monkeypatch.setattr(module, name, 0.2)
    with trio.fail_after(SECONDS):
        async with open_redis() as redis, open_servers(tmp_path, redis) as (one, two), open_agent(one):
            await answers(two)
            assert readiness(two) == "ready"
            redis.stop()
            await two.line("store")
            # It is served, by who has it and by who knows who has it.
            for served in (one, two):
                await answers(served)
            assert two.metrics()["sproxy_relay_store_up"] == 0
            said = readiness(two)
            assert said.startswith("ready\nstore: Redis: ")
            assert said.endswith("goes on with what it knows")
            await redis.start()
            await eventually(lambda: len(two.lines("store")) == 2)
            assert two.lines("store")[-1]["message"] == "Redis answers again"
            assert readiness(two) == "ready"


@needs_redis
async def test_what_is_revoked_at_one_server_is_so_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "LOOK", 0.1)
    jwt = 'revoked = "revoked.txt"\n'
    with trio.fail_after(SECONDS):
        async with open_redis() as redis, open_servers(tmp_path, redis, jwt=jwt) as (_one, two):
            stolen = make_token("alice", token_id="stolen")
            async with two.link(stolen) as websocket:
                (tmp_path / "one" / "revoked.txt").write_text("stolen\n")
                with pytest.raises(WebSocketClosedError, match="revoked"):
                    await websocket.receive()
            with pytest.raises(WebSocketRejectedError, match="revoked"):
                async with two.link(stolen):
                    pass


@needs_redis
async def test_what_is_asked_for_at_one_server_counts_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = "[tiers.free]\nrequests_per_minute = 3\n"
    told = Counter[str]()
    take = redis_store.RedisStore.take

    async def note(
        store: redis_store.RedisStore, bucket: str, key: str, rate: Rate, tokens: int = 1
    ) -> float:
        full = await take(store, bucket, key, rate, tokens)
        if key == "alice":
            told[store.server] += tokens
        return full

    monkeypatch.setattr(redis_store.RedisStore, "take", note)
    with trio.fail_after(SECONDS):
        async with open_redis() as redis, open_servers(tmp_path, redis, more=more) as (one, two):
            for _ in range(3):
                async with one.link(make_token("alice")):
                    pass
            # What was taken before it began to share is not told.
            await eventually(lambda: told.total() >= 2)
            # That server learns of it when it tells of its own.
            async with two.link(make_token("alice")):
                pass
            await eventually(lambda: len(told) == 2)
            with pytest.raises(WebSocketRejectedError) as caught:
                async with two.link(make_token("alice")):
                    pass
            assert caught.value.status == 429
            async with two.link(make_token("bob")):
                pass


@needs_redis
async def test_what_was_joined_is_let_go(tmp_path: Path) -> None:
    async with open_redis() as redis, open_servers(tmp_path, redis) as (one, two), open_agent(one):
        with trio.fail_after(SECONDS):
            await answers(two)
            one.stop.set()
            await one.over.wait()
            # Nobody has the agent.
            async with open_client(two.url, agent="nas") as reaching:
                reaching.begin()
                await eventually(lambda: reaching.why_not)
                assert "no agent 'nas' is connected" in str(reaching.why_not)


def test_proofs_are_of_tls_1_3_and_both_ends_show_them(tmp_path: Path) -> None:
    cluster = load_clustered(tmp_path, "redis://127.0.0.1:1").cluster
    assert cluster is not None
    proofs = read_proofs(cluster)
    for context in (proofs.accepting, proofs.dialing):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
    assert proofs.dialing.check_hostname
    assert len(proofs.dialing.get_ca_certs()) == 1


async def test_a_server_that_is_alone_shares_nothing(tmp_path: Path) -> None:
    async with open_relay_daemon(load_relay(tmp_path)) as served:
        assert attrs.asdict(served.daemon.config.store)["redis"] is None
        assert not served.lines("cluster")
        assert readiness(served) == "ready"

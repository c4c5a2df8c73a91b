"""A relay that speaks SSH with a real sshd behind an agent: whatever is cut but the relay itself, streams go on."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from tests.support.exchanges import exchange
from tests.support.relay_cluster import End, Server, run_server
from tests.support.relay_ssh_world import ME, SETTINGS, open_echo, open_relay_ssh_world
from tests.support.sshd import HOST, SSHD, Sshd, start_sshd
from tests.support.tunnels import eventually
from tunnel_relay.agent.offering import Offering
from tunnel_relay.background import open_background
from tunnel_relay.client import forwarding, reaching
from tunnel_relay.client.forwarding import open_forwarding
from tunnel_relay.errors import RelayProtocolError, SshKeyError
from tunnel_relay.inner_link import InnerLink
from tunnel_relay.policy.access import FREE, PREMIUM, Access, Held, Tier
from tunnel_relay.policy.breaker import BreakerSettings
from tunnel_relay.policy.lease import Leases
from tunnel_relay.policy.outbox import OutboxSettings
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.requests import Request, Status
from tunnel_relay.record import RecordSettings, open_record
from tunnel_relay.relay_stream import RelayStream, StreamRefusedError, StreamResetError
from tunnel_relay.server import relay_ssh
from tunnel_relay.server.cluster import RELAYS
from tunnel_relay.server.relay_ssh import RelaySsh, RelaySshSettings
from tunnel_relay.server.ssh_login import LoginSettings, SshAccount, SshConnected, SshEnded, SshFailed
from tunnel_relay.server.ssh_pool import PoolSettings
from tunnel_relay.server.store import Memory, MemoryStore
from tunnel_relay.server.switch import Port
from tunnel_relay.ssh.hostkeys import KnownHosts
from tunnel_relay.ssh.settings import SshSettings

pytestmark = pytest.mark.skipif(not SSHD, reason="sshd is not installed")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (forwarding, reaching, relay_ssh):
        monkeypatch.setattr(module, "PAUSE", 0.01)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with start_sshd(tmp_path_factory.mktemp("sshd"), authorized=[ME.public_line]) as server:
        yield server


async def test_a_target_is_reached(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_echo() as echo, open_relay_ssh_world(sshd, tmp_path) as world:
            assert await world.exchange(echo, b"hello" * 100_000) == b"hello" * 100_000
            [event] = world.told
            assert isinstance(event, SshConnected)
            assert (event.user, event.agent) == ("alice", "nas")
            assert event.new_host_key.startswith("SHA256:")
            assert world.known_hosts.path.read_text() == f"alice/nas {sshd.host_key}\n"
            assert world.relay.connections == 1


@pytest.mark.parametrize("seed", range(2))
async def test_streams_outlive_the_loss_of_links(sshd: Sshd, tmp_path: Path, seed: int) -> None:
    """The client's link and the agent's, under load; the SSH connection is the same to the end."""
    rng = random.Random(seed)
    data = [rng.randbytes(400_000) for _ in range(8)]
    with trio.fail_after(60):
        async with (
            open_echo() as echo,
            open_relay_ssh_world(sshd, tmp_path) as world,
            trio.open_nursery() as nursery,
        ):

            async def weather() -> None:
                deeds = (partial(world.cut, "client"), partial(world.cut, "agent"))
                while True:
                    for _ in range(rng.randrange(100)):
                        await trio.lowlevel.checkpoint()
                    rng.choice(deeds)()
                    await trio.sleep(0.02)

            nursery.start_soon(weather)
            async with trio.open_nursery() as transfers:

                async def transfer(content: bytes) -> None:
                    assert await world.exchange(echo, content) == content

                for content in data:
                    transfers.start_soon(transfer, content)
            assert world.links > 8
            assert [type(event) for event in world.told] == [SshConnected]
            nursery.cancel_scope.cancel()


async def test_new_streams_work_soon_after_the_relay_was_started_anew(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with open_echo() as echo, open_relay_ssh_world(sshd, tmp_path) as world:
            old = world.client.open_stream(echo)
            await old.wait_accepted()
            world.restart()
            with pytest.raises(StreamResetError, match="started anew"):
                await old.receive_some()
            with trio.fail_after(5):
                assert await world.exchange(echo, b"again") == b"again"


async def test_new_streams_work_after_the_agent_s_own_end(sshd: Sshd, tmp_path: Path) -> None:
    """It forgets its sessions: the SSH connection breaks, and another one is made."""
    with trio.fail_after(30):
        async with open_echo() as echo, open_relay_ssh_world(sshd, tmp_path) as world:
            old = world.client.open_stream(echo)
            await old.wait_accepted()
            await old.send_all(b"before")
            assert await old.receive_some() == b"before"
            for kept in list(world.agent._sessions.values()):  # pyright: ignore[reportPrivateUsage]
                kept.live.lose("started anew")
            with pytest.raises(StreamResetError, match="started anew") as caught:
                await old.receive_some()
            assert caught.value.reason is Reason.BROKEN
            assert await world.exchange(echo, b"again") == b"again"


async def test_why_a_target_is_not_reached_is_said(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_relay_ssh_world(sshd, tmp_path) as world:
            await refused(world.client, f"{HOST}:1", Reason.REFUSED, "Connection refused|Connection failed")
            await refused(world.client, "nonsense", Reason.NO_SUCH_SERVICE, "'nonsense' is no HOST:PORT")


async def refused(client: reaching.Reaching, target: str, reason: Reason, words: str) -> None:
    """See to it that a stream is refused so."""
    stream = client.open_stream(target)
    with pytest.raises(StreamRefusedError, match=words) as caught:
        await stream.wait_accepted()
    assert caught.value.reason is reason


async def test_a_tier_must_allow_the_mode(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_relay_ssh_world(sshd, tmp_path, tier="free") as world:
            stream = world.client.open_stream("localhost:1")
            with pytest.raises(StreamResetError, match="the tier 'free' has no mode 'relay-ssh'"):
                await stream.wait_accepted()
            assert world.agent.sessions == 0


async def test_nobody_reaches_another_user_s_agent(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_relay_ssh_world(sshd, tmp_path, user="mallory") as world:
            stream = world.client.open_stream("localhost:1")
            with trio.move_on_after(0.5):
                await stream.wait_accepted()
                pytest.fail("reached")
            assert world.client.why_not == "no agent 'nas' is connected, nor any other of 'mallory'"
            assert world.agent.sessions == 0


async def test_a_changed_host_key_is_refused_and_the_breaker_opens(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(30):
        other = ME.public_line
        (tmp_path / "known_hosts").write_text(f"alice/nas {other}\n")
        async with open_relay_ssh_world(sshd, tmp_path) as world:
            for _ in range(5):
                await refused(
                    world.client,
                    "localhost:1",
                    Reason.UNREACHABLE,
                    "host key is not the one that the relay knows",
                )
            await refused(world.client, "localhost:1", Reason.UNREACHABLE, "next attempt is made in")
            assert [isinstance(event, SshFailed) and event.opened for event in world.told] == [False] * 4 + [
                True
            ]
            assert world.relay.breaker_state() == 2


async def test_without_an_account_nobody_logs_in(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_relay_ssh_world(sshd, tmp_path) as world:
            world.account = None
            await refused(world.client, "localhost:1", Reason.UNREACHABLE, "knows no way to log in")
            assert world.told == []
            world.account = SshKeyError("the key is gone")
            await refused(
                world.client, "localhost:1", Reason.UNREACHABLE, "'nas': the relay's key cannot be used"
            )
            assert world.told == [SshFailed(user="alice", agent="nas", detail="the key is gone")]


@pytest.mark.parametrize("noticed", [True, False])
async def test_an_agent_that_is_away_is_waited_for_a_little(
    sshd: Sshd, tmp_path: Path, *, noticed: bool
) -> None:
    settings = RelaySshSettings(session=SETTINGS, login=LoginSettings(patience=0.2, setup=1))
    with trio.fail_after(20):
        async with open_echo() as echo, open_relay_ssh_world(sshd, tmp_path, settings=settings) as world:
            assert await world.exchange(echo, b"here") == b"here"
            world.away.add("agent")
            world.cut("agent")
            if noticed:
                await trio.testing.wait_all_tasks_blocked()
            for held in world.relay._sides["alice", "nas"].pool._held:  # pyright: ignore[reportPrivateUsage]
                held.well = False
            why = "no agent 'nas' is connected, nor any other of 'alice'"
            await refused(world.client, echo, Reason.UNREACHABLE, why)
            assert world.relay.breaker_state() == 0
            world.back.set()
            assert await world.exchange(echo, b"again") == b"again"


async def test_who_has_all_connections_that_the_tier_allows_gives_up_one(sshd: Sshd, tmp_path: Path) -> None:
    tier = attrs.evolve(PREMIUM, most={Held.SSH_CONNECTIONS: 1})
    with trio.fail_after(20):
        async with (
            open_echo() as echo,
            open_relay_ssh_world(sshd, tmp_path, access=Access((FREE, tier))) as world,
        ):
            other_agent = Offering(world.nursery, {"ssh": (HOST, sshd.port)}, "two", SETTINGS)
            pi = reaching.Reaching(world.nursery, "pi", SETTINGS, Mode.RELAY_SSH)
            world.nursery.start_soon(
                world.dial, "pi", other_agent, lambda: Port(world.switch, "alice", agent="pi", instance="two")
            )
            world.nursery.start_soon(
                world.dial, "other", pi, lambda: Port(world.switch, "alice", tier="premium")
            )
            stream = world.client.open_stream(echo)
            await stream.wait_accepted()
            await refused(pi, echo, Reason.LIMIT, "1 SSH connections are the most that the tier allows")
            await stream.aclose()
            assert await world.exchange(echo, b"the first one's is free") == b"the first one's is free"
            while world.relay.streams:
                await trio.testing.wait_all_tasks_blocked(0.02)
            other = pi.open_stream(echo)
            await other.wait_accepted()
            assert world.relay.connections == 1
            assert (tmp_path / "known_hosts").read_text().count("alice/pi") == 1


async def test_an_agent_that_talks_nonsense_does_no_harm(sshd: Sshd, tmp_path: Path) -> None:
    settings = RelaySshSettings(session=SETTINGS, login=LoginSettings(patience=0.3))
    with trio.fail_after(20):
        async with open_echo() as echo, open_relay_ssh_world(sshd, tmp_path, settings=settings) as world:
            world.away.add("agent")
            world.cut("agent")
            await trio.testing.wait_all_tasks_blocked()
            bad = Port(world.switch, "alice", agent="nas", instance="bad")

            def answer(frame: Frame) -> None:
                with suppress(KeyError, RelayProtocolError):
                    bad.heed(Frame(FrameType.WELCOME, frame.session, payload=b"welcome?"))

            link = bad.link = InnerLink(answer)
            world.nursery.start_soon(link.run)
            world.switch.register(bad)
            await refused(world.client, echo, Reason.UNREACHABLE, "no SSH connection to the agent 'nas'")
            world.switch.unregister(bad)
            bad.lose("gone")
            world.back.set()
            assert await world.exchange(echo, b"a good one") == b"a good one"


async def test_what_nobody_needs_is_given_up(sshd: Sshd, tmp_path: Path) -> None:
    settings = RelaySshSettings(
        session=attrs.evolve(SETTINGS, grace=0.1), pool=PoolSettings(idle=0.1, check=0.05), linger=0.05
    )
    with trio.fail_after(20):
        async with open_echo() as echo, open_relay_ssh_world(sshd, tmp_path, settings=settings) as world:
            assert await world.exchange(echo, b"once") == b"once"
            world.away.add("client")
            world.cut("client")
            # The last thing that ends is its session with the agent.
            while world.agent.sessions:
                await trio.testing.wait_all_tasks_blocked(0.02)
            assert world.relay.connections == world.relay.streams == 0
            assert world.told[-1] == SshEnded(user="alice", agent="nas", detail="")
            world.back.set()
            with pytest.raises(StreamResetError, match="not known here"):
                await world.exchange(echo, b"anew")
            assert await world.exchange(echo, b"twice") == b"twice"


async def test_what_is_told_otherwise_holds_for_what_there_is(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_echo() as echo, open_relay_ssh_world(sshd, tmp_path) as world:
            assert await world.exchange(echo, b"once") == b"once"

            async def nobody(_user: str, _agent: str) -> None:
                await trio.lowlevel.checkpoint()

            settings = RelaySshSettings(session=SETTINGS, pool=PoolSettings(idle=0.1, check=0.05, warm=0))
            world.relay.change(nobody, settings, BreakerSettings())
            [held] = world.relay._sides["alice", "nas"].pool._held  # pyright: ignore[reportPrivateUsage]
            held.well = False
            await refused(world.client, echo, Reason.UNREACHABLE, "knows no way to log in")


async def test_an_agent_that_is_about_to_end_is_let_go(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_echo() as echo, open_relay_ssh_world(sshd, tmp_path) as world:
            stream = world.client.open_stream(echo)
            await stream.wait_accepted()
            world.agent.drain("the agent is being shut down")
            await trio.testing.wait_all_tasks_blocked()
            assert world.relay.connections == 1
            assert await exchange(stream, b"hello") == b"hello"
            # The connection that would be kept warm is not.
            await eventually(lambda: not world.agent.streams)
            assert world.relay.connections == 0


async def test_an_agent_is_left_alone_when_its_last_stream_has_ended(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_echo() as echo, open_relay_ssh_world(sshd, tmp_path) as world:
            stream = world.client.open_stream(echo)
            await stream.wait_accepted()
            await world.relay.drain("the relay is being shut down")
            assert world.client.stays
            assert await exchange(stream, b"hello") == b"hello"
            await eventually(lambda: not world.agent.streams)
            assert world.relay.connections == 0
            await world.client.wait_free()
            assert not world.client.stays
            await refused(world.client, echo, Reason.LIMIT, "the relay is being shut down")


@attrs.define(eq=False)
class TwoServers:
    """Two servers that speak SSH; the agent is at the far one, and the client comes to the near one first."""

    near: Server
    far: Server
    relays: list[RelaySsh]
    scopes: list[trio.CancelScope]
    reaching: reaching.Reaching
    client: End

    async def comes_anew_to(self, server: Server) -> None:
        """Have the client come by another server, and be back in its session."""
        self.client.move(server)
        await eventually(lambda: not self.reaching.why_not)


@asynccontextmanager
async def open_two_servers(sshd: Sshd, folder: Path) -> AsyncGenerator[TwoServers]:
    memory = Memory(Leases(45.0))
    known_hosts = KnownHosts(folder / "known_hosts")

    async def account(_user: str, _agent: str) -> SshAccount:
        await trio.lowlevel.checkpoint()
        return SshAccount(sshd.user, [ME], known_hosts)

    async with open_background() as nursery:
        near, far = [await nursery.start(run_server, MemoryStore(name, memory)) for name in ("near", "far")]
        scopes: list[trio.CancelScope] = []

        async def run(server: Server, *, task_status: trio.TaskStatus[RelaySsh]) -> None:
            with trio.CancelScope() as scope:
                async with open_background() as own:
                    relay = RelaySsh(own, server.switch, Access(), account, lambda _event: None)
                    server.switch.keeper = relay.keep
                    known_as = Port(server.switch, RELAYS, agent="", instance=relay.instance)
                    own.start_soon(server.cluster.stay, known_as)
                    scopes.append(scope)
                    task_status.started(relay)
                    await trio.sleep_forever()

        relays = [await nursery.start(run, server) for server in (near, far)]
        agent = Offering(nursery, {"ssh": (HOST, sshd.port)}, "one", SETTINGS)
        client = reaching.Reaching(nursery, "nas", SETTINGS, Mode.RELAY_SSH)
        coming = End(client, lambda at: Port(at.switch, "alice", tier="premium"), near)
        nursery.start_soon(
            End(agent, lambda at: Port(at.switch, "alice", agent="nas", instance="one"), far).run
        )
        nursery.start_soon(coming.run)
        yield TwoServers(near, far, relays, scopes, client, coming)
        nursery.cancel_scope.cancel()


async def says(stream: RelayStream, word: bytes) -> None:
    """See to it that *word* is echoed."""
    await stream.send_all(word)
    assert await stream.receive_some() == word


async def test_an_agent_at_another_server_is_reached(sshd: Sshd, tmp_path: Path) -> None:
    """The client's server speaks SSH, over a session that leads through the agent's."""
    with trio.fail_after(20):
        async with open_echo() as echo, open_two_servers(sshd, tmp_path) as world:
            stream = world.reaching.open_stream(echo)
            await stream.wait_accepted()
            await says(stream, b"hello")
            assert [relay.connections for relay in world.relays] == [1, 0]


async def test_a_client_that_comes_to_another_server_is_led_back(sshd: Sshd, tmp_path: Path) -> None:
    """What the first server has in its hands for it stays there, and new streams do."""
    with trio.fail_after(30):
        async with open_echo() as echo, open_two_servers(sshd, tmp_path) as world:
            stream = world.reaching.open_stream(echo)
            await stream.wait_accepted()
            for server in (world.far, world.near, world.far):
                await world.comes_anew_to(server)
                await says(stream, b"still here")
            other = world.reaching.open_stream(echo)
            await other.wait_accepted()
            await says(other, b"hello")
            assert [relay.connections for relay in world.relays] == [1, 0]


async def test_where_the_first_server_is_gone_so_is_what_it_had(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with open_echo() as echo, open_two_servers(sshd, tmp_path) as world:
            stream = world.reaching.open_stream(echo)
            await stream.wait_accepted()
            # It dies without a word to the store.
            lease = (await world.far.cluster.store.agents(RELAYS))[-1]
            world.scopes[0].cancel()
            await trio.testing.wait_all_tasks_blocked()
            world.near.kill()
            assert await world.far.cluster.store.register(lease.key, world.near.cluster.address)
            world.client.move(world.far)
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            other = world.reaching.open_stream(echo)
            await other.wait_accepted()
            await says(other, b"hello")
            assert world.relays[1].connections == 1


async def test_requests_are_done_once_behind_ssh(sshd: Sshd, tmp_path: Path) -> None:
    """Whatever is cut, and though the relay is started anew."""
    rng = random.Random(3)
    heard: list[bytes] = []

    async def count(stream: trio.SocketStream) -> None:
        read = bytearray()
        async for data in stream:
            read += data
        heard.append(bytes(read))
        await stream.send_all(read)

    with trio.fail_after(60):
        async with (
            open_record(tmp_path / "record.db", RecordSettings()) as record,
            open_relay_ssh_world(sshd, tmp_path, record=record) as world,
            open_forwarding(
                world.client, settings=OutboxSettings(), store=None, notify=lambda _event: None
            ) as requests,
            trio.open_nursery() as nursery,
        ):
            [listener] = await trio.open_tcp_listeners(0, host=HOST)
            nursery.start_soon(trio.serve_listeners, count, [listener])
            target = f"{HOST}:{listener.socket.getsockname()[1]}"

            async def weather() -> None:
                deeds = (partial(world.cut, "client"), partial(world.cut, "agent"))
                while True:
                    for _ in range(rng.randrange(100)):
                        await trio.lowlevel.checkpoint()
                    rng.choice(deeds)()
                    await trio.sleep(0.02)

            payloads = [rng.randbytes(20_000 * number) for number in range(8)]

            async def ask(number: int, payload: bytes) -> None:
                request = Request(id=str(number), target=target, payload=payload, most=len(payload))
                response = await requests.forward(request)
                assert (response.status, response.payload) == (Status.DONE, payload)

            nursery.start_soon(weather)
            async with trio.open_nursery() as asking:
                for number, payload in enumerate(payloads):
                    asking.start_soon(ask, number, payload)
            assert sorted(heard) == sorted(payloads)
            world.restart()
            await ask(7, payloads[7])
            assert len(heard) == len(payloads)
            nursery.cancel_scope.cancel()


async def test_why_a_request_is_not_done_is_said(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with (
            open_record(tmp_path / "record.db", RecordSettings()) as record,
            open_relay_ssh_world(sshd, tmp_path, record=record) as world,
        ):
            response = await (await world.client.wait_ready()).ask(
                Request(id="1", target=f"{HOST}:1", payload=b"")
            )
            assert response.status in (Status.REFUSED, Status.UNREACHABLE)
            response = await (await world.client.wait_ready()).ask(Request(id="2", target="db", payload=b""))
            assert response.status is Status.NO_SUCH_TARGET


async def test_without_a_record_no_request_is_done(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_relay_ssh_world(sshd, tmp_path) as world:
            response = await (await world.client.wait_ready()).ask(
                Request(id="1", target="localhost:1", payload=b"")
            )
            assert response.status is Status.NOT_ALLOWED


@pytest.mark.parametrize("for_all", [True, False])
@pytest.mark.parametrize(
    ("tier", "compressing"), [(PREMIUM, True), (attrs.evolve(PREMIUM, features=frozenset()), False)]
)
async def test_connections_are_compressed_where_the_tier_allows_it(
    sshd: Sshd, tmp_path: Path, tier: Tier, *, compressing: bool, for_all: bool
) -> None:
    settings = RelaySshSettings(session=SETTINGS, login=LoginSettings(ssh=SshSettings(compression=for_all)))
    with trio.fail_after(20):
        async with (
            open_echo() as echo,
            open_relay_ssh_world(sshd, tmp_path, settings=settings, access=Access((FREE, tier))) as world,
        ):
            assert isinstance(world.account, SshAccount)
            world.account = attrs.evolve(world.account, compression=not for_all)
            assert await world.exchange(echo, b"hello" * 100_000) == b"hello" * 100_000
            [held] = world.relay._sides["alice", "nas"].pool._held  # pyright: ignore[reportPrivateUsage]
            assert held.session.compressing == compressing

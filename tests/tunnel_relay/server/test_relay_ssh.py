"""A relay that speaks SSH with a real sshd behind an agent: whatever is cut but the relay itself, streams go on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.relay_ssh_world import ME, SETTINGS, open_echo, open_relay_ssh_world
from tests.support.sshd import HOST, SSHD, Sshd, start_sshd
from tunnel_relay.client import reaching
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.server import relay_ssh
from tunnel_relay.server.relay_ssh import RelaySshSettings, SshConnected, SshFailed
from tunnel_relay.sessions import StreamRefusedError, StreamResetError

pytestmark = pytest.mark.skipif(not SSHD, reason="sshd is not installed")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reaching, relay_ssh):
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
            assert world.client.why_not == "no agent 'nas' is connected"
            assert world.agent.sessions == 0


async def test_a_changed_host_key_is_refused_and_the_breaker_opens(sshd: Sshd, tmp_path: Path) -> None:
    with trio.fail_after(30):
        other = ME.public_line
        (tmp_path / "known_hosts").write_text(f"alice/nas {other}\n")
        async with open_relay_ssh_world(sshd, tmp_path) as world:
            for _ in range(5):
                await refused(
                    world.client, "localhost:1", Reason.UNREACHABLE, "host key of alice/nas changed"
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
            await refused(world.client, "localhost:1", Reason.NOT_ALLOWED, "knows no way to log in")
            assert world.told == []


@pytest.mark.parametrize("noticed", [True, False])
async def test_an_agent_that_is_away_is_waited_for_a_little(
    sshd: Sshd, tmp_path: Path, *, noticed: bool
) -> None:
    settings = RelaySshSettings(session=SETTINGS, patience=0.2, setup=1)
    with trio.fail_after(20):
        async with open_echo() as echo, open_relay_ssh_world(sshd, tmp_path, settings=settings) as world:
            assert await world.exchange(echo, b"here") == b"here"
            world.away.add("agent")
            world.cut("agent")
            if noticed:
                await trio.testing.wait_all_tasks_blocked()
            for held in world.relay._sides["alice", "nas"].pool._held:  # pyright: ignore[reportPrivateUsage]
                held.well = False
            await refused(world.client, echo, Reason.UNREACHABLE, "no agent 'nas' is connected")
            assert world.relay.breaker_state() == 0
            world.back.set()
            assert await world.exchange(echo, b"again") == b"again"

"""Links between servers: who may come, and what becomes of sessions; that frames get there, test_cluster shows."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.folders import runtime_folder
from tests.support.relay_cluster import Contexts, open_cluster_world
from tests.support.relay_ports import Carrier
from tests.support.relay_tokens import Certificate, make_certificate
from tests.support.tunnels import eventually
from tunnel_relay.client import reaching
from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.policy.access import Denial
from tunnel_relay.policy.lease import AgentKey
from tunnel_relay.protocol.frames import LINK, Frame, FrameType
from tunnel_relay.protocol.greetings import GoAway, Hello, read_go_away, write
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.server import peering
from tunnel_relay.server.peering import (
    LOST,
    NEIGHBOUR,
    UNIX,
    Entrance,
    Exit,
    PeerAwayError,
    PeerLinked,
    PeerLost,
    Route,
    read_route,
)
from tunnel_relay.server.store import Memory, MemoryStore, Store
from tunnel_relay.server.switch import Port, Switch

SECONDS = 20


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "PAUSE", 0.01)


def stores(count: int) -> list[Store]:
    memory = Memory()
    return [MemoryStore(str(number), memory) for number in range(count)]


def contexts(folder: Path, ours: Certificate, believed: Certificate) -> Contexts:
    """Return how to be who has *ours*, and to believe one only."""
    both: list[ssl.SSLContext] = []
    for purpose in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH):
        context = ssl.create_default_context(purpose, cadata=believed.certificate)
        context.load_cert_chain(*ours.write(folder))
        context.verify_mode = ssl.CERT_REQUIRED
        both.append(context)
    return both[0], both[1]


def test_a_route_is_a_line_before_the_greeting() -> None:
    for route in (Route("alice", 'n"\n', "one"), Route(*["\N{SNAIL}" * 64] * 4)):
        assert read_route(route.encode() + b"{}\n{}") == (route, b"{}\n{}")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]\n",
        b'{"user": 1, "agent": "", "instance": ""}\n',
        b'{"user": "", "agent": "", "instance": "", "tier": 1}\n',
        b"\xff\n",
        b"[" * 8000 + b"\n",
    ],
)
def test_what_is_no_route(payload: bytes) -> None:
    with pytest.raises(RelayProtocolError):
        read_route(payload)


HELLO = write(Hello(agent="nas", token="0" * 32, fence=1))
NONSENSE = b"nonsense"


def entrance(sessions: int) -> tuple[Entrance, Carrier, Carrier]:
    """Return an entrance with so many sessions with an agent, and what is sent to the other server and the agent."""
    switch = Switch()
    port, nas = Entrance(switch, ""), Port(switch, "alice", agent="nas", instance="1")
    port.link, nas.link = near, far = Carrier(), Carrier()
    switch.register(nas)
    for label in range(1, sessions + 1):
        port.heed(Frame(FrameType.HELLO, label, payload=Route("alice", "nas", "1").encode() + HELLO))
    far.take()
    return port, near, far


def farewells(wire: Carrier) -> list[tuple[int, bool]]:
    return [(frame.session, read_go_away(frame.payload).lost) for frame in wire.own]


@pytest.mark.parametrize("kind", [FrameType.GOAWAY, FrameType.HELLO, FrameType.RESUME, FrameType.WELCOME])
def test_nonsense_from_another_server_costs_one_session(kind: FrameType) -> None:
    port, near, far = entrance(2)
    port.heed(Frame(kind, 1, payload=NONSENSE))
    assert port.sessions == 1
    assert farewells(near) == farewells(far) == [(1, False)]
    with pytest.raises(RelayProtocolError):
        port.heed(Frame(FrameType.REFRESH, LINK))


@pytest.mark.parametrize("kind", [FrameType.GOAWAY, FrameType.HELLO, FrameType.WELCOME])
def test_nonsense_from_an_agent_at_another_server_costs_one_session(kind: FrameType) -> None:
    switch = Switch()
    port, client = Exit(switch, "alice", agent="nas", instance="1"), Port(switch, "alice")
    port.link, client.link = far, near = Carrier(), Carrier()
    switch.register(port)
    for label in (5, 6):
        client.heed(Frame(FrameType.HELLO, label, payload=HELLO))
    port.heed(Frame(kind, 1, payload=NONSENSE))
    assert (port.sessions, client.sessions) == (1, 1)
    assert (farewells(near), farewells(far)) == ([(5, False)], [(1, False)])


@pytest.mark.parametrize("lost", [True, False])
def test_what_a_client_leaves_for_good_is_left_so_everywhere(lost: bool) -> None:
    port, near, far = entrance(1)
    port.heed(Frame(FrameType.GOAWAY, 1, payload=write(GoAway(lost=lost, detail="enough"))))
    assert (farewells(near), farewells(far)) == ([], [(1, lost)])
    assert port.sessions == 0


async def test_servers_know_each_other_by_their_certificates(tmp_path: Path) -> None:
    one = make_certificate()
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(2), contexts=contexts(tmp_path, one, one)) as world:
            assert await world.exchange(b"hello" * 10_000) == b"hello" * 10_000
            assert PeerLinked("relay") in world.servers[0].told
            assert PeerLinked(world.servers[0].cluster.address) in world.servers[1].told


async def test_a_stranger_is_not_let_in(tmp_path: Path) -> None:
    """The one that dials shows a certificate of another authority, though it believes ours."""
    ours, strange = make_certificate(), make_certificate()
    accepting = contexts(tmp_path, ours, ours)[0]
    dialing = contexts(tmp_path, strange, ours)[1]
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(2), contexts=(accepting, dialing)) as world:
            stream = world.reaching.open_stream("echo")
            with trio.move_on_after(1):
                await stream.wait_accepted()
                pytest.fail("reached")
            lost = world.servers[0].told[-1]
            assert isinstance(lost, PeerLost)
            assert "verify failed" in lost.reason
            assert "cannot be reached" in (world.reaching.why_not or "")


async def test_a_server_that_is_no_such_is_not_believed(tmp_path: Path) -> None:
    ours, strange = make_certificate(), make_certificate()
    accepting = contexts(tmp_path, strange, ours)[0]
    dialing = contexts(tmp_path, ours, ours)[1]
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(2), contexts=(accepting, dialing)) as world:
            world.reaching.begin()
            await eventually(lambda: "cannot be reached" in (world.reaching.why_not or ""))


async def test_a_lost_link_is_news_to_both_ends() -> None:
    """They come back, and streams go on."""
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(2)) as world:
            stream = world.reaching.open_stream("echo")
            await stream.wait_accepted()
            await stream.send_all(b"one")
            assert await stream.receive_some() == b"one"
            changed = world.reaching.changed
            [dialed] = world.servers[1].cluster.peers._dialed.values()
            link = dialed.port.link
            await link.websocket.aclose()  # type: ignore[attr-defined]
            await changed.wait()
            assert (world.reaching.attached, world.reaching.why_not) == (False, LOST)
            await stream.send_all(b"two")
            assert await stream.receive_some() == b"two"
            await stream.aclose()


async def test_a_link_that_is_lost_at_once_carries_nothing() -> None:
    """Who waited for it hears of that, and joins no session to what is gone."""
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(1)) as world:
            [server] = world.servers
            peers = server.cluster.peers
            tell = peers.notify

            def lose(event: peering.PeerEvent) -> None:
                tell(event)
                if isinstance(event, PeerLinked) and event.address == server.cluster.address:
                    # Those who wait are woken, and this goes before them.
                    del peers._dialed[server.cluster.address]

            peers.notify = lose
            with pytest.raises(PeerAwayError, match=LOST):
                await peers.reach(server.cluster.address)


async def test_nothing_is_left_of_sessions_that_are_over() -> None:
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(2)) as world:
            there, here = world.servers
            for _ in range(3):
                assert await world.exchange(b"x") == b"x"
                world.client.move(here)
            assert await world.exchange(b"x") == b"x"
            agent = there.switch.find("alice", "nas", None)
            assert agent is not None
            await eventually(lambda: agent.sessions == 1)
            [dialed] = here.cluster.peers._dialed.values()
            assert dialed.port.sessions == 1


async def test_a_server_that_is_dead_is_passed_over() -> None:
    """Of two agents of that name, the one that came last was at a server that is no more."""
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(2)) as world:
            assert await world.exchange(b"x") == b"x"
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            dead = f"127.0.0.1:{listener.socket.getsockname()[1]}"
            await listener.aclose()
            store = world.servers[1].cluster.store
            assert await store.register(AgentKey("alice", "nas", "two"), dead)
            world.reaching.begin().lose("anew")
            await trio.testing.wait_all_tasks_blocked()
            assert await world.exchange(b"y") == b"y"
            assert any(isinstance(each, PeerLost) and each.address == dead for each in world.servers[1].told)


async def test_a_link_that_carries_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peering, "IDLE", 0.05)
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(2)) as world:
            assert await world.exchange(b"x") == b"x"
            there, here = world.servers
            world.client.move(there)
            await eventually(lambda: any(isinstance(each, PeerLost) for each in here.told))
            assert not here.cluster.peers._dialed
            world.client.move(here)
            assert await world.exchange(b"y") == b"y"


async def test_who_only_knocks_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peering, "CONNECT", 0.1)
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(1)) as world:
            [server] = world.servers
            host, _, port = server.cluster.address.rpartition(":")
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                assert not await stream.receive_some()
            await eventually(lambda: server.told)
            assert "has not said in" in str(server.told[-1])


def test_what_the_server_itself_has_is_kept_or_lost() -> None:
    asked: list[tuple[str, str, str, str | None]] = []
    switch = Switch()
    port, carrier, ours = (
        Entrance(switch, ""),
        Carrier(),
        Port(switch, "alice", agent="nas", instance="relay"),
    )
    port.link, ours.link = carrier, Carrier()

    def keep(client: Port, name: str, instance: str | None) -> Port | Denial | None:
        asked.append((client.user, client.tier, name, instance))
        return {"relay": ours, "older": Denial(Reason.SESSION_LOST, "started anew")}.get(str(instance))

    switch.keeper = keep
    for label, instance in enumerate(("relay", "older", "none"), 1):
        greeting = Route("alice", "nas", instance, "premium").encode() + NONSENSE
        port.heed(Frame(FrameType.RESUME, label, payload=greeting))
    assert asked == [("alice", "premium", "nas", instance) for instance in ("relay", "older", "none")]
    assert ours.sessions == 1
    older, none = (read_go_away(frame.payload) for frame in carrier.own)
    assert (older.lost, older.detail, none.lost) == (True, "started anew", False)


async def test_workers_of_one_machine_have_sockets_of_their_own() -> None:
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(2), folder=Path(runtime_folder())) as world:
            there, here = world.servers
            assert await world.exchange(b"x" * 100_000) == b"x" * 100_000
            assert PeerLinked(there.cluster.address) in here.told
            assert PeerLinked(NEIGHBOUR) in there.told


async def test_a_worker_that_is_not_there() -> None:
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(1)) as world:
            nobody = f"{UNIX}{runtime_folder()}/nobody"
            with pytest.raises(PeerAwayError, match="no such file or directory"):
                await world.servers[0].cluster.peers.reach(nobody)


async def test_where_there_are_certificates_nothing_leads_around_them(tmp_path: Path) -> None:
    certificate, folder = make_certificate(), Path(runtime_folder())
    both = contexts(tmp_path, certificate, certificate)
    with trio.fail_after(SECONDS):
        async with open_cluster_world(stores(2), folder=folder) as open_to_all:
            address = open_to_all.servers[0].cluster.address
            async with open_cluster_world(stores(1), contexts=both) as world:
                with pytest.raises(PeerAwayError, match="it proves nothing"):
                    await world.servers[0].cluster.peers.reach(address)

"""The ``relay`` upstream, through a real server and a real agent, to a real sshd."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.errors import ExitCode, RefusedError, TransportDownError, UdpUnsupportedError
from session_proxy.events import Event, Notice, UpstreamUp
from session_proxy.lab.relay import open_relay
from session_proxy.outbound.links import LinkFailedError, LinkLostError
from session_proxy.outbound.relay import RelaySshLink, Way, open_relay_transport
from session_proxy.outbound.transport import HealthState, Services
from session_proxy.profile.model import RelayEndpoint, RelayUpstream, Ssh
from session_proxy.profile.secret import Secret
from session_proxy.target import Target
from tests.support.dialings import Server, Tokens, serving, token, watching
from tests.support.exchanges import exchange
from tests.support.relay_tokens import make_certificate, make_token
from tests.support.relay_tunnel import open_world
from tests.support.sshd import Sshd, generate_key, start_sshd
from tests.support.tunnels import eventually
from tunnel_relay.background import open_background
from tunnel_relay.client.reaching import LABEL, Reaching
from tunnel_relay.dial_events import Linked
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.greetings import Mode, Welcome, write
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.tls import server_tls


@attrs.define(eq=False)
class Nas:
    """A real sshd, and what logs in to it."""

    server: Sshd
    home: Path
    events: list[Event] = attrs.field(factory=list[Event])

    @property
    def services(self) -> Services:
        return Services(notify=self.events.append, rng=random.Random(1), environ={"HOME": str(self.home)})

    @property
    def ssh(self) -> Ssh:
        return Ssh(user=self.server.user, key=str(self.home / "key"), known_hosts=self.home / "known_hosts")

    @property
    def address(self) -> Target:
        return Target.of("127.0.0.1", self.server.port)

    def notices(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Notice)]


@pytest.fixture
def nas(tmp_path: Path) -> Generator[Nas]:
    """Serve until the test ends."""
    public = generate_key(tmp_path / "key")
    with start_sshd(tmp_path / "sshd", authorized=[public]) as server:
        yield Nas(server, tmp_path)


async def echo(stream: trio.SocketStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


@asynccontextmanager
async def echoing() -> AsyncGenerator[Target]:
    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        yield Target.of("127.0.0.1", listeners[0].socket.getsockname()[1])


async def test_streams_through_a_relay(nas: Nas) -> None:
    data = os.urandom(3_000_000)
    with trio.fail_after(30):
        async with echoing() as target, open_relay(nas.address) as way:
            upstream = attrs.evolve(way, ssh=nas.ssh)
            async with open_relay_transport("home", upstream, nas.services) as transport:
                assert transport.health().state is HealthState.READY
                async with trio.open_nursery() as nursery:

                    async def transfer() -> None:
                        assert await exchange(await transport.connect_tcp(target), data) == data

                    for _ in range(3):
                        nursery.start_soon(transfer)
                with pytest.raises(RefusedError):
                    await transport.connect_tcp(Target.of("127.0.0.1", 1))
                with pytest.raises(UdpUnsupportedError):
                    await transport.open_udp()
                await eventually(lambda: "round trip" in dict(transport.health().details))
                details = dict(transport.health().details)
                assert (details["via"], details["relay"]) == ("agent lab", upstream.endpoints[0].url)
                assert details["round trip"].endswith(" ms")
                assert "reconnections" not in details
            [up] = [event for event in nas.events if isinstance(event, UpstreamUp)]
            assert up.via == "agent lab"
            assert f"uses the relay {upstream.endpoints[0].url}" in nas.notices()
            assert (nas.home / "known_hosts").read_text().startswith("lab.home.relay ")


async def test_the_only_agent_needs_no_name(nas: Nas) -> None:
    with trio.fail_after(30):
        async with open_relay(nas.address) as way:
            upstream = attrs.evolve(way, ssh=nas.ssh, agent=None)
            async with open_relay_transport("home", upstream, nas.services) as transport:
                assert transport.health().state is HealthState.READY


@attrs.frozen
class Wrong:
    """What is wrong, and how that is told."""

    changes: dict[str, object]
    match: str
    code: ExitCode
    needs_person: bool = True


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong(
            {"agent": "pi"},
            r"no agent 'pi' is connected; there is 'lab'",
            ExitCode.UNREACHABLE,
            needs_person=False,
        ),
        Wrong(
            {"service": "sshd"},
            r"the agent's service 'sshd': no service 'sshd' is offered",
            ExitCode.UNREACHABLE,
        ),
        Wrong(
            {"token": Secret("literal", "", "x.y.z")}, r"401: the token is malformed", ExitCode.NOT_PERMITTED
        ),
        Wrong(
            {"mode": "relay-ssh"},
            r"this relay has no mode 'relay-ssh'; it needs \[users.lab.ssh\] in its file",
            ExitCode.NOT_PERMITTED,
        ),
        Wrong({"ca": Path("/nowhere/ca.pem")}, r"ca: /nowhere/ca.pem cannot be used", ExitCode.CONFIGURATION),
        Wrong(
            {"endpoints": (RelayEndpoint(url="ws://127.0.0.1:1"),)},
            r"ws://127.0.0.1:1: 127.0.0.1, port 1: Connection refused",
            ExitCode.UNREACHABLE,
            needs_person=False,
        ),
    ],
    ids=lambda wrong: next(iter(wrong.changes)),
)
async def test_what_is_wrong_is_told_in_one_line(nas: Nas, wrong: Wrong) -> None:
    with trio.fail_after(30):
        async with open_relay(nas.address) as way:
            upstream: RelayUpstream = attrs.evolve(way, ssh=nas.ssh, **wrong.changes)
            with pytest.raises(LinkFailedError, match=wrong.match) as caught:
                async with open_relay_transport("home", upstream, nas.services):
                    pass
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code is wrong.code


async def test_a_relay_that_goes_away_is_told_and_streams_fail_over(nas: Nas) -> None:
    with trio.fail_after(30):
        async with echoing() as target, open_background() as nursery:
            scope = trio.CancelScope()
            ways: list[RelayUpstream] = []
            there = trio.Event()

            async def serve() -> None:
                with scope:
                    async with open_relay(nas.address) as way:
                        ways.append(way)
                        there.set()
                        await trio.sleep_forever()

            nursery.start_soon(serve)
            await there.wait()
            upstream = attrs.evolve(ways[0], ssh=nas.ssh)
            async with open_relay_transport("home", upstream, nas.services) as transport:
                assert await exchange(await transport.connect_tcp(target), b"before") == b"before"
                scope.cancel()
                await eventually(lambda: transport.health().state is not HealthState.READY)
                assert "Connection refused" in transport.health().reason
                with pytest.raises((TransportDownError, trio.TooSlowError)), trio.fail_after(0.5):
                    await transport.connect_tcp(target)


async def test_a_silent_way_is_noticed_where_the_relay_speaks_ssh() -> None:
    server = Server()
    async with (
        serving(server),
        watching([Endpoint(url=server.url)], Tokens([token()])) as it,
        open_background() as nursery,
    ):
        reaching = Reaching(nursery, "nas", SessionSettings(), Mode.RELAY_SSH)
        link = RelaySshLink(Way(reaching, it.dialing), reaching.begin())
        await it.wait_for(Linked)
        assert await link.probe() > 0
        # It hears nothing from the next message on.
        server.links[0].hold(60)
        with trio.move_on_after(0.2) as silent:
            await link.probe()
        assert silent.cancelled_caught
        async with trio.open_nursery() as asking:
            asking.start_soon(link.probe)
            await server.websockets[0].abandon()
            await it.wait_for(Linked, 2)
        reaching.part("that was it")
        with pytest.raises(LinkLostError, match="that was it"):
            await link.probe()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_who_ends_leaves_nothing_at_the_agent(tmp_path: Path, cancelled: bool) -> None:
    with trio.fail_after(30):
        async with open_world(tmp_path / "record.db") as there:
            upstream = RelayUpstream(
                endpoints=(RelayEndpoint(url=f"ws://{there.address}"),),
                token=Secret("literal", "", make_token("alice")),
                agent="nas",
                startup="background",
            )
            services = Services(rng=random.Random(1), environ={"HOME": str(tmp_path)})
            with trio.CancelScope() as scope:
                async with open_relay_transport("home", upstream, services):
                    await eventually(lambda: there.agent.offering.sessions == 1)
                    if cancelled:
                        scope.cancel()
            await eventually(lambda: there.agent.offering.sessions == 0)


async def test_the_pool_hears_when_the_link_and_the_agent_are_back() -> None:
    server, back = Server(), [0]

    def note() -> None:
        back[0] += 1

    async with (
        serving(server),
        watching([Endpoint(url=server.url)], Tokens([token()])) as it,
        open_background() as nursery,
    ):
        reaching = Reaching(nursery, "nas", SessionSettings())
        nursery.start_soon(Way(reaching, it.dialing).keep_telling, note)
        await eventually(lambda: back == [1])
        reaching.begin()
        link = it.dialing.link
        assert link is not None
        reaching.attach(link)
        reaching.heed(Frame(FrameType.WELCOME, LABEL, payload=write(Welcome(instance="one", received=0))))
        await eventually(lambda: back == [2])
        reaching.detach()
        await server.websockets[0].aclose(1001, "upgraded")
        await it.wait_for(Linked, 2)
        await eventually(lambda: back == [3])


async def test_a_certificate_that_is_not_believed_is_for_people(tmp_path: Path) -> None:
    context = make_certificate().server_context()

    async def shake(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await server_tls(stream, context).do_handshake()

    with trio.fail_after(30):
        async with open_background() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, shake, 0, host="127.0.0.1"))
            upstream = RelayUpstream(
                endpoints=(RelayEndpoint(url=f"wss://127.0.0.1:{listeners[0].socket.getsockname()[1]}"),),
                token=Secret("literal", "", make_token("alice")),
            )
            services = Services(rng=random.Random(1), environ={"HOME": str(tmp_path)})
            with pytest.raises(
                LinkFailedError, match="its certificate is not believed: self-signed"
            ) as caught:
                async with open_relay_transport("home", upstream, services):
                    pass
    assert caught.value.exit_code is ExitCode.CONFIGURATION

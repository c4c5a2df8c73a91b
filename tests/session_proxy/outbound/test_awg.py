"""Upstreams of kind awg, over UDP on loopback to a server of the library."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
from trio.testing import MockClock

from awg_obfs import upkeep
from awg_obfs.client import TunnelState
from awg_obfs.condition import NOTHING_THROUGH
from awg_obfs.errors import DialFault
from awg_obfs.events import AssociationClosed, HandshakeCompleted, LookUpFailed, SessionUp
from awg_obfs.limits import Limits
from awg_obfs.protocol.keys import key_to_text
from session_proxy.errors import (
    DialError,
    ExitCode,
    NotAllowedError,
    RefusedError,
    ResolutionError,
    TransportDownError,
)
from session_proxy.events import AwgHappened, Event, LinksChanged, Notice, UpstreamDown, UpstreamUp
from session_proxy.outbound import awg
from session_proxy.outbound.awg import AwgTransport, open_awg_transport, tunnel_settings
from session_proxy.outbound.awg_figures import AwgSource
from session_proxy.outbound.failover import open_dialer
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.transport import (
    EarlyBytes,
    EarlyTransport,
    HealthState,
    ProvableTransport,
    Services,
)
from session_proxy.policy.rules import Rule
from session_proxy.profile.model import AwgUpstream, Failover, Profile, Startup
from session_proxy.profile.secret import Secret
from session_proxy.target import Target
from tests.support.awg_events import PEER
from tests.support.doors import open_door
from tests.support.sockets import read_exactly
from tests.support.tunnel_ends import receive_exactly
from tests.support.tunnels import (
    FORBIDDEN,
    TunnelWorld,
    eventually,
    open_destination,
    open_tunnel_world,
    open_udp_echo,
    read_all,
)

SECONDS = 20
# Long enough for a session on loopback, and short enough to be waited for.
PATIENCE = 1.0


@attrs.define(eq=False)
class Watched:
    """An upstream, and everything that is said about it."""

    world: TunnelWorld
    events: list[Event] = attrs.field(factory=list[Event])
    _came: trio.Event = attrs.field(factory=trio.Event)

    def upstream(self, startup: Startup = "required") -> AwgUpstream:
        """Return the world's client as a profile has it."""
        client = self.world.client
        return AwgUpstream(
            endpoint=Target.of(*client.server),
            private_key=secret(client.private_key),
            public_key=secret(client.public_key),
            preshared_key=secret(client.preshared_key),
            startup=startup,
            keepalive_padding=client.keepalive_padding,
            awg=client.parameters,
        )

    @asynccontextmanager
    async def open(self, startup: Startup = "required") -> AsyncGenerator[AwgTransport]:
        services = Services(notify=self._note)
        async with open_awg_transport("edge", self.upstream(startup), services) as transport:
            yield transport

    async def wait_for(
        self, kind: type[UpstreamUp | UpstreamDown | Notice], count: int = 1
    ) -> UpstreamUp | UpstreamDown | Notice:
        """Return event number *count* of a *kind*, when it has come."""
        while len(found := [event for event in self.events if isinstance(event, kind)]) < count:
            await self._came.wait()
        return found[count - 1]

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._came.set()
        self._came = trio.Event()


@asynccontextmanager
async def open_watched(limits: Limits | None = None) -> AsyncGenerator[Watched]:
    with trio.fail_after(SECONDS):
        async with open_tunnel_world(limits=limits) as world:
            yield Watched(world)


def secret(key: bytes) -> Secret:
    return Secret("literal", "", key_to_text(key))


async def test_a_connection_goes_through_and_back() -> None:
    async with open_watched() as watched, open_destination() as port, watched.open() as transport:
        stream = await transport.connect_tcp(Target.of("localhost", port))
        await stream.send_all(b"hello")
        assert await receive_exactly(stream, 5) == b"hello"  # pyright: ignore[reportArgumentType]
        assert transport.figures().sessions[0].streams == 1
        await stream.send_eof()
        assert await read_all(stream) == b""
        await stream.aclose()


async def test_what_becomes_of_it_is_told() -> None:
    async with open_watched() as watched:
        via = str(watched.upstream().endpoint)
        async with watched.open() as transport:
            health = transport.health()
            assert (health.state, health.reason) == (HealthState.READY, "")
            assert health.details[:2] == (("via", via), ("streams", "0"))
            up = await watched.wait_for(UpstreamUp)
            assert isinstance(up, UpstreamUp)
            assert (up.upstream, up.via) == ("edge", via)
            assert LinksChanged("edge", 1) in watched.events
            handshakes = [
                event
                for event in watched.events
                if isinstance(event, AwgHappened) and isinstance(event.event, HandshakeCompleted)
            ]
            assert [event.link for event in handshakes] == ["edge"]
            # The two lines about the upstream say it already.
            assert not any(
                isinstance(event, AwgHappened) and isinstance(event.event, SessionUp)
                for event in watched.events
            )


async def test_figures_are_those_of_the_session() -> None:
    async with open_watched() as watched, open_destination() as port, watched.open() as transport:
        stream = await transport.connect_tcp(Target.of("127.0.0.1", port))
        await stream.aclose()
        assert isinstance(transport, AwgSource)
        [session] = transport.figures().sessions
        assert (session.link, session.up) == ("edge", True)
        assert session.sent > 0
        assert session.received > 0
        assert session.latency.keys() == {0.5, 0.95, 0.99}


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ("127.0.0.1", RefusedError),
        (FORBIDDEN, NotAllowedError),
        ("nowhere.invalid", ResolutionError),
    ],
)
async def test_why_a_destination_was_not_reached(host: str, error: type[DialError]) -> None:
    async with open_watched() as watched, watched.open() as transport:
        with pytest.raises(error) as caught:
            await transport.connect_tcp(Target.of(host, 1))
        assert caught.value.upstream == "edge"
        # Only what came about counts as latency.
        assert not transport.figures().sessions[0].latency


async def test_a_server_that_allows_no_more_is_no_fault_of_the_destination() -> None:
    """So another upstream may be tried."""
    async with (
        open_watched(Limits(streams=1)) as watched,
        open_destination() as port,
        watched.open() as transport,
        await transport.connect_tcp(Target.of("127.0.0.1", port)),
    ):
        with pytest.raises(TransportDownError, match="allows 1 connections"):
            await transport.connect_tcp(Target.of("127.0.0.1", port))


async def test_datagrams_go_through_and_back() -> None:
    async with open_watched() as watched, open_udp_echo() as address, watched.open() as transport:
        association = await transport.open_udp()
        target = Target.of(*address)
        await association.send(target, b"ping")
        assert await association.receive() == (target, b"ping")
        await association.aclose()
        await watched.world.server.diary.wait_for(AssociationClosed)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have silence noticed soon."""
    monkeypatch.setattr(awg, "PATIENCE", PATIENCE)
    monkeypatch.setattr(upkeep, "NEXT_ADDRESS", PATIENCE / 2)


@pytest.mark.usefixtures("impatient")
async def test_a_required_upstream_without_an_answer_says_what_to_check() -> None:
    async with open_watched() as watched:
        watched.world.relay.blackout(True)
        with pytest.raises(
            LinkFailedError, match=r"^no answer from .*; check that awg-server runs there"
        ) as caught:
            async with watched.open():
                raise AssertionError
        assert caught.value.exit_code is ExitCode.UNREACHABLE


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_answers_is_told_from_a_silent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the notice, the reason, and the state."""
    monkeypatch.setattr(awg, "FIRST_WORD", PATIENCE / 2)
    async with open_watched() as watched:
        watched.world.client = attrs.evolve(watched.world.client, preshared_key=bytes(32))
        via = watched.upstream().endpoint
        expected = f"{via} answers, but the preshared keys differ; make preshared_key the same on both sides"
        async with watched.open("background") as transport:
            word = await watched.wait_for(Notice)
            assert isinstance(word, Notice)
            assert word.message == f"still connecting: {expected}"
            down = await watched.wait_for(UpstreamDown)
            assert isinstance(down, UpstreamDown)
            assert down.reason == transport.health().reason == expected


@pytest.mark.usefixtures("impatient")
async def test_in_the_background_it_comes_up_when_it_can() -> None:
    async with open_watched() as watched, open_destination() as port:
        watched.world.relay.blackout(True)
        async with watched.open("background") as transport:
            assert transport.health().state is HealthState.STARTING
            await transport.wait_usable()
            # Whoever asks now waits, and is told when it takes too long.
            with pytest.raises(TransportDownError, match="no answer"):
                await transport.connect_tcp(Target.of("127.0.0.1", port))
            down = await watched.wait_for(UpstreamDown)
            assert isinstance(down, UpstreamDown)
            assert "check that" in down.reason
            assert transport.health().state is HealthState.DOWN
            health = transport.health()
            assert health.reason.endswith(awg.SILENCE)
            # The reason has the address already.
            assert "via" not in dict(health.details)
            watched.world.relay.blackout(False)
            await transport.wait_usable()
            async with await transport.connect_tcp(Target.of("127.0.0.1", port)):
                pass


@pytest.mark.usefixtures("impatient")
async def test_whoever_waits_for_a_server_is_told_what_for_and_reminded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(awg, "FIRST_WORD", PATIENCE / 4)
    monkeypatch.setattr(awg, "REMINDER", PATIENCE / 2)
    async with open_watched() as watched:
        watched.world.relay.blackout(True)
        async with watched.open("background"):
            word = await watched.wait_for(Notice)
            assert isinstance(word, Notice)
            assert word.level == "info"
            via = watched.upstream().endpoint
            assert word.message == f"still connecting: no answer from {via} so far; {awg.SILENCE}"
            assert not any(isinstance(event, UpstreamDown) for event in watched.events)
            for count in (2, 3):
                reminder = await watched.wait_for(Notice, count)
                assert isinstance(reminder, Notice)
                assert reminder.level == "warning"
                assert reminder.message == f"down for 0 min: no answer from {via}; {awg.SILENCE}"
            assert len([event for event in watched.events if isinstance(event, UpstreamDown)]) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_server_whose_name_is_not_found_is_told_of_at_once_and_once() -> None:
    events: list[Event] = []
    async with open_watched() as watched:
        upstream = attrs.evolve(watched.upstream("background"), endpoint=Target.of("nowhere.invalid", 51820))
        async with open_awg_transport("edge", upstream, Services(notify=events.append)) as transport:
            await eventually(lambda: events)
            [told] = events
            assert isinstance(told, AwgHappened)
            assert isinstance(told.event, LookUpFailed)
            assert told.event.reason == transport.health().reason
            await eventually(lambda: len(events) > 1)
            # By then it was looked up several times.
            down = events[1]
            assert isinstance(down, UpstreamDown)
            assert down.reason == told.event.reason


# Seconds that a datagram takes each way where round trips are counted.
FAR = 0.25

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def patient_clock() -> MockClock:
    """Virtual time that does not pass while datagrams are on their way in the kernel."""
    return MockClock(autojump_threshold=0.005)


async def answer(stream: trio.SocketStream) -> None:
    """Be a server that answers the first bytes that it gets, and closes when the client does."""
    with suppress(trio.BrokenResourceError):
        assert await stream.receive_some()
        await stream.send_all(OK)
        assert await stream.receive_some() == b""


@pytest.mark.parametrize(("early", "round_trips"), [(b"early", 1), (b"", 2)])
async def test_early_bytes_save_a_round_trip(
    early: bytes, round_trips: int, patient_clock: MockClock
) -> None:
    async with open_watched() as watched, open_destination() as port, watched.open() as transport:
        assert isinstance(transport, EarlyTransport)
        watched.world.relay.up.delay = watched.world.relay.down.delay = FAR
        began, first = trio.current_time(), EarlyBytes(early)
        stream = await transport.connect_tcp_early(Target.of("127.0.0.1", port), first)
        assert first.sent == bool(early)
        assert transport.streams() == 1
        if not early:
            await stream.send_all(b"early")
        assert await read_exactly(stream, 5) == b"early"
        assert trio.current_time() - began == pytest.approx(round_trips * 2 * FAR, rel=0.2)
        await stream.aclose()


@pytest.mark.parametrize(
    ("request_", "waits"),
    [
        # What may not be repeated goes when there is a connection.
        (b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n", 1),
        (b"POST http://%b/ HTTP/1.1\r\nHost: %b\r\nContent-Length: 2\r\n\r\nhi", 2),
        (b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\nGET / HTTP/1.1\r\n\r\n", 1),
    ],
)
async def test_a_request_takes_one_round_trip(request_: bytes, waits: int, patient_clock: MockClock) -> None:
    """The client's answer, and its destination's, come as early as they can."""
    async with open_watched() as watched, open_destination(answer) as port:
        profile = Profile(upstreams={"edge": watched.upstream()}, default="edge")
        async with open_dialer(profile, Services()) as dialer, open_door(dialer) as door:
            watched.world.relay.up.delay = watched.world.relay.down.delay = FAR
            authority = b"127.0.0.1:%d" % port
            async with await door.connect() as client:
                began = trio.current_time()
                await client.send_all(request_.replace(b"%b", authority))
                received = b""
                while not received.endswith(b"ok"):
                    received += await client.receive_some()
                assert trio.current_time() - began == pytest.approx(waits * 2 * FAR, rel=0.2)
            assert received.count(b"200") == (2 if request_.startswith(b"CONNECT") else 1)


async def test_early_bytes_of_a_request_that_the_server_refuses_have_not_arrived() -> None:
    early = EarlyBytes(b"early")
    async with open_watched() as watched, watched.open() as transport:
        with pytest.raises(NotAllowedError):
            await transport.connect_tcp_early(Target.of(FORBIDDEN, 80), early)
        assert early.left == b"early"


async def test_many_bytes_do_not_go_early() -> None:
    early = EarlyBytes(bytes(awg.LONGEST_EARLY + 1))
    async with open_watched() as watched, open_destination() as port, watched.open() as transport:
        stream = await transport.connect_tcp_early(Target.of("127.0.0.1", port), early)
        assert early.left == early.data
        await stream.aclose()


@pytest.mark.usefixtures("impatient")
async def test_early_bytes_stay_here_while_there_is_no_session() -> None:
    early = EarlyBytes(b"early")
    async with open_watched() as watched:
        watched.world.relay.blackout(True)
        async with watched.open("background") as transport:
            with pytest.raises(TransportDownError):
                await transport.connect_tcp_early(Target.of("127.0.0.1", 80), early)
            assert early.left == b"early"


async def test_early_bytes_of_a_request_that_is_given_up_may_have_arrived(patient_clock: MockClock) -> None:
    early = EarlyBytes(b"early")
    async with open_watched() as watched, open_destination() as port, watched.open() as transport:
        watched.world.relay.blackout(True)
        with trio.move_on_after(0.2):
            await transport.connect_tcp_early(Target.of("127.0.0.1", port), early)
        assert early.is_spent


@pytest.mark.usefixtures("impatient")
async def test_the_next_upstream_of_a_route_takes_over() -> None:
    async with open_watched() as watched, open_destination() as port:
        watched.world.relay.blackout(True)
        profile = Profile(
            upstreams={"edge": watched.upstream("background")},
            routes=(Rule.of("*", ["edge", "direct"]),),
            failover=Failover(back_after=0),
        )
        target = Target.of("127.0.0.1", port)
        async with open_dialer(profile, Services()) as dialer:
            for _ in range(2):
                connected = await dialer.connect(target, await dialer.decide(target))
                assert connected.upstream == "direct"
                await connected.stream.aclose()
            watched.world.relay.blackout(False)
            await dialer.transports["edge"].wait_usable()
            connected = await dialer.connect(target, await dialer.decide(target))
            assert connected.upstream == "edge"
            await connected.stream.aclose()


async def test_a_server_that_is_there_says_so_when_asked() -> None:
    async with open_watched() as watched, watched.open() as transport:
        assert isinstance(transport, ProvableTransport)
        await transport.prove()
        watched.world.relay.blackout(True)
        with trio.move_on_after(0.5) as waiting:
            await transport.prove()
        assert waiting.cancelled_caught


async def test_a_connection_leaves_a_tunnel_that_has_just_died() -> None:
    """Before the tunnel knows of it, which takes it two seconds."""
    async with open_watched() as watched, open_destination() as port:
        profile = Profile(
            upstreams={"edge": watched.upstream("required")}, routes=(Rule.of("*", ["edge", "direct"]),)
        )
        target = Target.of("127.0.0.1", port)
        async with open_dialer(profile, Services()) as dialer:
            connected = await dialer.connect(target, await dialer.decide(target))
            assert connected.upstream == "edge"
            watched.world.relay.blackout(True)
            again = await dialer.connect(target, await dialer.decide(target))
            assert again.upstream == "direct"
            assert dialer.transports["edge"].health().state is HealthState.READY
            await again.stream.aclose()


async def test_a_server_that_ends_is_told_of() -> None:
    async with open_watched() as watched, watched.open() as transport:
        watched.world.server.stop.set()
        down = await watched.wait_for(UpstreamDown)
        assert isinstance(down, UpstreamDown)
        assert "stopping" in down.reason
        assert "check that" not in down.reason
        assert LinksChanged("edge", 0) in watched.events
        assert transport.health().state is not HealthState.READY


@pytest.mark.parametrize(("patience", "kind"), [(12.0, Notice), (0.2, UpstreamUp)])
async def test_a_server_that_is_heard_again_is_told_of(
    patience: float, kind: type[Notice | UpstreamUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session has lived on; whoever was told that it is down is told that it is not."""
    monkeypatch.setattr(awg, "PATIENCE", patience)
    async with open_watched() as watched, watched.open("background") as transport:
        await watched.wait_for(UpstreamUp)
        watched.world.relay.blackout(True)
        await eventually(lambda: transport.health().state is not HealthState.READY)
        if kind is UpstreamUp:
            await watched.wait_for(UpstreamDown)
        watched.world.relay.blackout(False)
        again = await watched.wait_for(kind, 2 if kind is UpstreamUp else 1)
        if isinstance(again, Notice):
            assert again.message.startswith("the server is heard again, ")
            assert not any(isinstance(event, UpstreamDown) for event in watched.events)
        assert transport.health().state is HealthState.READY


async def test_there_is_no_session_with_a_key_that_is_none() -> None:
    async with open_watched() as watched:
        upstream = attrs.evolve(watched.upstream(), public_key=secret(bytes(32)))
        with pytest.raises(LinkFailedError, match="public_key") as caught:
            async with open_awg_transport("edge", upstream, Services()):
                raise AssertionError
        assert caught.value.needs_person
        assert caught.value.exit_code is ExitCode.CONFIGURATION


def test_every_fault_and_state_has_its_counterpart() -> None:
    assert awg.ERRORS.keys() == set(DialFault)
    assert awg.STATES.keys() == set(TunnelState)


async def test_the_library_gets_what_the_profile_says() -> None:
    async with open_watched() as watched:
        upstream = attrs.evolve(watched.upstream(), mtu=1400)
        expected = attrs.evolve(watched.world.client, mtu=1400, name="edge", patience=awg.PATIENCE)
        assert tunnel_settings("edge", upstream) == expected
        without = tunnel_settings("edge", attrs.evolve(upstream, preshared_key=None))
        assert without.preshared_key == bytes(32)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("no answer from the server", f"no answer from the server; {awg.SILENCE}"),
        ("no answer from 192.0.2.1:443", f"no answer from 192.0.2.1:443; {awg.SILENCE}"),
        (
            f"192.0.2.1:443 {NOTHING_THROUGH}",
            f"192.0.2.1:443 {NOTHING_THROUGH}; make s4 and h4 the same on both sides, or lower mtu",
        ),
        ("192.0.2.1:443 answers, but the preshared keys differ; make", None),
        ("the server is stopping", None),
        ("", None),
    ],
)
def test_silence_gets_advice(reason: str, expected: str | None) -> None:
    assert awg.explained(reason) == (reason if expected is None else expected)
    assert "private_key, public_key, preshared_key and s1 to h4 of both sides" in awg.SILENCE


def test_what_only_a_server_tells_is_no_news_of_ours() -> None:
    events: list[Event] = []
    reporter = awg.Reporter("edge", Target.of("192.0.2.1", 443), events.append)

    reporter(AssociationClosed(peer=PEER, sent=1, received=2, dropped=0, duration=1.0))

    assert not events

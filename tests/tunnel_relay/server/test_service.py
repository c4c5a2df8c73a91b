"""Links that are let in, and for how long."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock, memory_stream_pair

from tunnel_relay.background import open_background
from tunnel_relay.errors import WebSocketClosedError
from tunnel_relay.policy.rate import Act, Rate, RateLimits, Rates
from tunnel_relay.protocol.frames import Frame, FrameType, decode, encode
from tunnel_relay.protocol.greetings import Hello, read_go_away, write
from tunnel_relay.protocol.tokens import Claims, Fault, Scope, TokenError, Verifier, issue, read_keys
from tunnel_relay.protocol.upgrade import SUBPROTOCOL, UNAUTHORIZED
from tunnel_relay.server.admission import AdmissionError, Asking
from tunnel_relay.server.events import (
    Cause,
    Ending,
    LinkClosed,
    LinkOpened,
    Origin,
    RateExceeded,
    RelayEvent,
    TokenRefreshed,
)
from tunnel_relay.server.service import GOING_AWAY, LEAVING, RelayService
from tunnel_relay.server.switch import Port
from tunnel_relay.websocket import WebSocket, request_websocket

KEYS = read_keys("a secret that nobody guesses, for it is long", ["HS256"])
EPOCH = 1_800_000_000.0
LABEL = 1
TOKEN = "0123456789abcdef" * 2
ORIGIN = Origin(connection="c1", address="203.0.113.9")


def token(user: str, *scopes: Scope, seconds: float = 600, token_id: str = "id") -> str:
    """Return a token of *user* that holds for so long."""
    claims = Claims(user, EPOCH + seconds, "", frozenset(scopes or {Scope.CLIENT, Scope.AGENT}), token_id)
    return issue(claims, KEYS[""], audience=None, now=EPOCH)


@attrs.define(eq=False)
class Relay:
    """A service, in virtual time, and what it told."""

    nursery: trio.Nursery
    service: RelayService
    told: list[RelayEvent]

    @asynccontextmanager
    async def link(self, asking: Asking) -> AsyncGenerator[WebSocket]:
        """Link somebody who asks so."""
        claims = self.service.admit(asking)
        near, far = memory_stream_pair()
        self.nursery.start_soon(self.service.serve, far, b"", asking, claims, ORIGIN)
        async with request_websocket(near, "relay.example", subprotocol=SUBPROTOCOL) as websocket:
            yield websocket


@asynccontextmanager
async def open_relay(revoked: set[str] | None = None) -> AsyncGenerator[Relay]:
    """Run a service."""
    told: list[RelayEvent] = []
    began = trio.current_time()
    service = RelayService(
        Verifier(KEYS),
        lambda: EPOCH + trio.current_time() - began,
        told.append,
        revoked=set[str]() if revoked is None else revoked,
    )
    async with open_background() as nursery:
        yield Relay(nursery, service, told)
        nursery.cancel_scope.cancel()


async def test_what_is_told_of_a_link(autojump_clock: MockClock) -> None:
    async with open_relay() as relay:
        async with relay.link(Asking(token("alice"), "nas", "one")):
            await trio.testing.wait_all_tasks_blocked()
            assert relay.told == [LinkOpened(origin=ORIGIN, user="alice", agent="nas")]
            assert relay.service.switch.find("alice", "nas", None) is not None
        await trio.testing.wait_all_tasks_blocked()
        [_, closed] = relay.told
        assert isinstance(closed, LinkClosed)
        assert (closed.origin, closed.user, closed.agent) == (ORIGIN, "alice", "nas")
        assert closed.detail == "the WebSocket was closed with code 1000"
        assert (closed.cause, closed.ending) == (None, Ending.LEFT)
        assert relay.service.switch.find("alice", "nas", None) is None


@pytest.mark.parametrize(
    ("asking", "error"),
    [
        (Asking("nonsense"), TokenError),
        (Asking(token("alice", seconds=-60)), TokenError),
        (Asking(token("alice", token_id="stolen")), TokenError),
        (Asking(token("alice", Scope.CLIENT), "nas", "one"), AdmissionError),
        (Asking(token("alice", Scope.AGENT)), AdmissionError),
    ],
)
async def test_who_may_not_is_not_let_in(asking: Asking, error: type[Exception]) -> None:
    async with open_relay({"stolen"}) as relay:
        with pytest.raises(error):
            relay.service.admit(asking)


async def test_a_link_ends_with_its_token(autojump_clock: MockClock) -> None:
    async with open_relay() as relay, relay.link(Asking(token("alice", seconds=100))) as websocket:
        began = trio.current_time()
        with pytest.raises(WebSocketClosedError, match="the token is expired") as caught:
            await stay(websocket)
        assert caught.value.code == UNAUTHORIZED
        assert 130 <= trio.current_time() - began <= 136
        await trio.testing.wait_all_tasks_blocked()
        closed = relay.told[-1]
        assert isinstance(closed, LinkClosed)
        assert (closed.cause, closed.ending) == (Cause.EXPIRED, Ending.TOKEN)
        assert closed.duration >= 130


async def test_a_link_ends_soon_after_its_token_is_revoked(autojump_clock: MockClock) -> None:
    revoked = set[str]()
    async with open_relay(revoked) as relay, relay.link(Asking(token("alice"))) as websocket:
        with trio.move_on_after(60):
            await stay(websocket)
        revoked.add("id")
        with pytest.raises(WebSocketClosedError, match="revoked"), trio.fail_after(6):
            await stay(websocket)


async def test_a_fresh_token_keeps_a_link(autojump_clock: MockClock) -> None:
    async with open_relay() as relay, relay.link(Asking(token("alice", seconds=100))) as websocket:
        fresh = token("alice", seconds=1000).encode()
        await websocket.send_binary(encode([Frame(FrameType.REFRESH, payload=fresh)]))
        with trio.move_on_after(900):
            await stay(websocket)
        assert relay.told[1:] == [TokenRefreshed(origin=ORIGIN, user="alice")]


@pytest.mark.parametrize(
    ("fresh", "code", "words"),
    [
        (token("mallory"), 1002, "somebody else's"),
        ("nonsense", UNAUTHORIZED, "malformed"),
        (token("alice", Scope.AGENT), UNAUTHORIZED, "scope does not hold 'client'"),
    ],
)
async def test_a_bad_token_ends_a_link(autojump_clock: MockClock, fresh: str, code: int, words: str) -> None:
    async with open_relay() as relay, relay.link(Asking(token("alice"))) as websocket:
        await websocket.send_binary(encode([Frame(FrameType.REFRESH, payload=fresh.encode())]))
        with pytest.raises(WebSocketClosedError, match=words) as caught:
            await websocket.receive()
        assert caught.value.code == code


def refresh(*tokens: str) -> bytes:
    """Return the message that brings *tokens*."""
    return encode([Frame(FrameType.REFRESH, payload=each.encode()) for each in tokens])


async def test_the_same_token_again_is_nothing_new(autojump_clock: MockClock) -> None:
    async with open_relay() as relay, relay.link(Asking(token("alice"))) as websocket:
        await websocket.send_binary(refresh(*[token("alice")] * 1000))
        await trio.testing.wait_all_tasks_blocked()
        assert [type(event) for event in relay.told] == [LinkOpened]


async def test_who_refreshes_its_token_too_often_has_the_last_one_later(autojump_clock: MockClock) -> None:
    async with open_relay() as relay, relay.link(Asking(token("alice"))) as websocket:
        relay.service.rates = RateLimits({}, Rates(requests=Rate(3, 60.0)))
        others = [token("alice", seconds=700 + number) for number in range(1000)]
        await websocket.send_binary(refresh(*others))
        await trio.testing.wait_all_tasks_blocked()
        told = relay.told[1:]
        assert told[:3] == [TokenRefreshed(origin=ORIGIN, user="alice")] * 3
        [exceeded] = told[3:]
        assert isinstance(exceeded, RateExceeded)
        assert (exceeded.act, exceeded.wait, exceeded.refused) == (Act.UPGRADE, pytest.approx(20), False)
        with trio.move_on_after(19):
            await stay(websocket)
        assert len(relay.told) == 5
        # The last of them holds for a second longer than the one before.
        with trio.move_on_after(2):
            await stay(websocket)
        assert relay.told[5:] == [TokenRefreshed(origin=ORIGIN, user="alice")]
        with pytest.raises(WebSocketClosedError, match="expired"):
            await stay(websocket)
        assert trio.current_time() >= 1699 + 30


async def test_a_token_that_had_to_wait_is_judged_as_any_other(autojump_clock: MockClock) -> None:
    async with open_relay() as relay, relay.link(Asking(token("alice"))) as websocket:
        relay.service.rates = RateLimits({}, Rates(requests=Rate(1, 60.0)))
        await websocket.send_binary(refresh(token("alice", seconds=700), token("mallory")))
        began = trio.current_time()
        with pytest.raises(WebSocketClosedError, match="somebody else's") as caught:
            await stay(websocket)
        assert caught.value.code == 1002
        assert trio.current_time() - began == pytest.approx(60, abs=1)


async def test_other_keys_end_the_links_of_the_old_ones(autojump_clock: MockClock) -> None:
    async with open_relay() as relay, relay.link(Asking(token("alice"))) as websocket:
        await trio.testing.wait_all_tasks_blocked()
        relay.service.trust(Verifier(KEYS))
        with trio.move_on_after(60):
            await stay(websocket)
        relay.service.trust(Verifier(read_keys("another secret that nobody guesses at all", ["HS256"])))
        with pytest.raises(WebSocketClosedError, match="forged") as caught:
            await stay(websocket)
        assert caught.value.code == UNAUTHORIZED


async def test_who_breaks_the_rules_is_told_of(autojump_clock: MockClock) -> None:
    async with open_relay() as relay, relay.link(Asking(token("alice"))) as websocket:
        await websocket.send_binary(b"nonsense")
        with pytest.raises(WebSocketClosedError):
            await websocket.receive()
        await trio.testing.wait_all_tasks_blocked()
        closed = relay.told[-1]
        assert isinstance(closed, LinkClosed)
        assert closed.ending is Ending.BROKEN


async def test_all_are_asked_to_go_before_the_end(autojump_clock: MockClock) -> None:
    async with (
        open_relay() as relay,
        relay.link(Asking(token("alice"))) as websocket,
        relay.link(Asking(token("mallory"))) as other,
    ):
        await trio.testing.wait_all_tasks_blocked()
        assert relay.service.figures().clients == 2
        relay.nursery.start_soon(relay.service.drain, 10)
        for each in (websocket, other):
            [frame] = decode(await _binary(each))
            assert (frame.type, frame.session) == (FrameType.GOAWAY, 0)
            assert read_go_away(frame.payload).detail == LEAVING
        await websocket.aclose()
        began = trio.current_time()
        with pytest.raises(WebSocketClosedError) as caught:
            await other.receive()
        assert caught.value.code == GOING_AWAY
        assert 9 < trio.current_time() - began < 11
        await trio.testing.wait_all_tasks_blocked()
        assert relay.service.figures().clients == 0


async def test_nobody_is_led_to_an_agent_that_is_asked_to_go(autojump_clock: MockClock) -> None:
    unregistered = trio.Event()

    async def stay_registered(_port: Port) -> None:
        try:
            await trio.sleep_forever()
        finally:
            unregistered.set()

    async with open_relay() as relay:
        relay.service.stay = stay_registered
        async with relay.link(Asking(token("alice"), "nas", "one")) as agent:
            await trio.testing.wait_all_tasks_blocked()
            relay.nursery.start_soon(relay.service.drain, 10)
            await unregistered.wait()
            assert relay.service.switch.find("alice", "nas", "one") is None
            [frame] = decode(await _binary(agent))
            assert (frame.type, frame.session) == (FrameType.GOAWAY, 0)
            # It may stay for a while.
            await trio.testing.wait_all_tasks_blocked()
            assert relay.service.figures().agents == 1
        await trio.testing.wait_all_tasks_blocked()
        assert relay.service.figures().agents == 0


async def test_pools_of_agents_are_a_matter_of_the_tier(autojump_clock: MockClock) -> None:
    async with open_relay() as relay:
        assert not relay.service.switch.pools("free")
        assert relay.service.switch.pools("premium")


async def test_users_do_not_see_each_other(autojump_clock: MockClock) -> None:
    async with (
        open_relay() as relay,
        relay.link(Asking(token("alice"), "nas", "one")),
        relay.link(Asking(token("mallory"))) as websocket,
    ):
        hello = write(Hello(agent="nas", token=TOKEN, fence=1))
        await websocket.send_binary(encode([Frame(FrameType.HELLO, LABEL, payload=hello)]))
        [frame] = decode(await _binary(websocket))
        assert (frame.type, frame.session) == (FrameType.GOAWAY, LABEL)
        assert read_go_away(frame.payload).detail == "no agent 'nas' is connected, nor any other of 'mallory'"


async def test_a_link_of_an_agent_that_has_another_one_is_closed(autojump_clock: MockClock) -> None:
    followed = trio.Event()

    async def stay_registered(port: Port) -> None:
        assert (port.user, port.agent) == ("alice", "nas")
        await followed.wait()

    async with open_relay() as relay:
        relay.service.stay = stay_registered
        async with (
            relay.link(Asking(token("alice"), "nas", "one")) as agent,
            # Clients have nothing to do with that.
            relay.link(Asking(token("alice"))),
        ):
            await trio.testing.wait_all_tasks_blocked()
            followed.set()
            with pytest.raises(WebSocketClosedError, match="the agent has another link") as caught:
                await agent.receive()
            assert caught.value.code == GOING_AWAY
            await trio.testing.wait_all_tasks_blocked()
            assert relay.service.switch.find("alice", "nas", None) is None
            assert relay.service.figures().clients == 1


def test_a_fault_says_nothing_of_the_token() -> None:
    with pytest.raises(TokenError) as caught:
        Verifier(KEYS).verify(token("alice")[:-3], EPOCH)
    assert str(caught.value) == "the token is forged"
    assert caught.value.fault is Fault.FORGED


async def stay(websocket: WebSocket) -> None:
    """Answer pings, until the link is closed."""
    while True:
        for frame in decode(await _binary(websocket)):
            assert frame.type is FrameType.PING
            await websocket.send_binary(encode([attrs.evolve(frame, type=FrameType.PONG)]))


async def _binary(websocket: WebSocket) -> bytes:
    message = await websocket.receive()
    assert isinstance(message, bytes)
    return message

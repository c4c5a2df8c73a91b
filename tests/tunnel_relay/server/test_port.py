"""The public port: who is let in, who is shown a page, who is turned away, and for how long anybody may dawdle."""

from __future__ import annotations

import base64
import ipaddress
import json
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock, memory_stream_pair

from tests.support.relay_tokens import AUDIENCE, KEYS, SECRET, make_certificate, make_token
from tunnel_relay.background import open_background
from tunnel_relay.errors import WebSocketRejectedError
from tunnel_relay.policy.access import FREE, Access, Held
from tunnel_relay.policy.rate import Rate, RateLimits, Rates
from tunnel_relay.protocol.proxy_header import SIGNATURE
from tunnel_relay.protocol.tokens import Scope, Verifier
from tunnel_relay.protocol.upgrade import CONNECT_PATH, SUBPROTOCOL
from tunnel_relay.server.events import Cause, LinkClosed, LinkOpened, RelayEvent, TurnedAway
from tunnel_relay.server.port import PARTING, PortSettings, PublicPort
from tunnel_relay.server.service import RelayService
from tunnel_relay.websocket import WebSocket, request_websocket

EPOCH = 1_800_000_000.0
HERE = "203.0.113.9"
BALANCER = "10.0.0.1"
TRUSTED = (ipaddress.ip_network("10.0.0.0/8"),)
SETTINGS = PortSettings()
MANY = Rate(1000, 60.0)


def token(
    user: str = "alice", *scopes: Scope, seconds: float = 600, token_id: str = "id", tier: str = ""
) -> str:
    return make_token(user, *scopes, seconds=seconds, token_id=token_id, tier=tier, now=EPOCH)


def head(path: str = CONNECT_PATH, method: str = "GET", **headers: str) -> bytes:
    """Return the head of an upgrade request; a header that is empty is left out."""
    fields = {
        "host": "relay",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-protocol": SUBPROTOCOL,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


async def page(stream: trio.abc.Stream) -> None:
    """Show a page, as whoever keeps the pages does."""
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")


@attrs.define(eq=False)
class Door:
    """A port in virtual time, and what it told."""

    nursery: trio.Nursery
    port: PublicPort
    told: list[RelayEvent]

    def knock(self, peer: str = HERE) -> trio.abc.Stream:
        """Connect, from the address *peer*."""
        near, far = memory_stream_pair()

        async def serve() -> None:
            async with far:
                await self.port.serve(far, peer)

        self.nursery.start_soon(serve)
        return near

    async def ask(self, request: bytes, peer: str = HERE) -> bytes:
        """Return all that is answered to *request*."""
        stream = self.knock(peer)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(request)
        return await read_all(stream)

    @asynccontextmanager
    async def link(self, bearer: str, peer: str = HERE) -> AsyncGenerator[WebSocket]:
        """Be let in with a token."""
        headers = [("Authorization", f"Bearer {bearer}")]
        async with request_websocket(
            self.knock(peer), "relay", CONNECT_PATH, headers=headers, subprotocol=SUBPROTOCOL
        ) as websocket:
            yield websocket

    def turned_away(self) -> list[TurnedAway]:
        """Return who was."""
        return [event for event in self.told if isinstance(event, TurnedAway)]

    def causes(self) -> list[Cause]:
        """Return why."""
        return [event.cause for event in self.turned_away()]


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Return what comes until the other end has closed."""
    try:
        return b"".join([bytes(chunk) async for chunk in stream])
    except trio.BrokenResourceError:
        return b""


@asynccontextmanager
async def open_door(
    settings: PortSettings = SETTINGS,
    *,
    revoked: Sequence[str] = (),
    access: Access | None = None,
    per_address: Rate = MANY,
) -> AsyncGenerator[Door]:
    """Keep a port."""
    told: list[RelayEvent] = []
    began = trio.current_time()
    access = access or Access()
    service = RelayService(
        Verifier(KEYS, AUDIENCE),
        lambda: EPOCH + trio.current_time() - began,
        told.append,
        revoked=revoked,
        access=access,
        rates=RateLimits(access.rates(), access.tier("").rates, per_address),
    )
    async with open_background() as nursery:
        yield Door(nursery, PublicPort(service, page, settings), told)
        nursery.cancel_scope.cancel()


async def test_a_page(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        answer = await door.ask(b"GET /api/tunnel/health HTTP/1.1\r\nHost: relay\r\n\r\n")
        assert answer.endswith(b"\r\n\r\npage")
        assert door.told == []


async def test_who_has_a_token_is_let_in(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        async with door.link(token(tier="free")):
            await trio.testing.wait_all_tasks_blocked()
            [opened] = door.told
            assert isinstance(opened, LinkOpened)
            assert (opened.user, opened.agent, opened.tier) == ("alice", None, "free")
            assert opened.origin.address == HERE
            assert opened.origin.correlation == opened.origin.connection
            assert door.port.service.access.held("alice", Held.CONNECTIONS) == 1
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(door.told[-1], LinkClosed)
        assert door.port.service.access.held("alice", Held.CONNECTIONS) == 0


def unsigned(**claims: object) -> str:
    """Return a token with ``alg=none``."""
    parts = [{"alg": "none", "typ": "JWT"}, {"sub": "alice", "exp": EPOCH + 600, "aud": AUDIENCE, **claims}]
    return ".".join(
        [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts] + [""]
    )


@pytest.mark.parametrize(
    ("bearer", "cause"),
    [
        (token(seconds=-60), Cause.EXPIRED),
        (make_token("alice", now=EPOCH, secret=SECRET[::-1]), Cause.FORGED),
        (unsigned(), Cause.FORGED),
        (make_token("alice", now=EPOCH, audience="somebody-else"), Cause.AUDIENCE),
        (make_token("alice", now=EPOCH, audience=None), Cause.AUDIENCE),
        (token(token_id="stolen"), Cause.REVOKED),
        ("nonsense", Cause.MALFORMED),
    ],
)
async def test_a_token_that_does_not_hold(autojump_clock: MockClock, bearer: str, cause: Cause) -> None:
    async with open_door(revoked=["stolen"]) as door:
        answer = await door.ask(
            head(authorization=f"Bearer {bearer}", x_correlation_id="c-17", user_agent="test")
        )
        assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert (
            b'\r\nWWW-Authenticate: Bearer error="invalid_token", error_description="the token is ' in answer
        )
        assert bearer.encode() not in answer
        [event] = door.turned_away()
        assert (event.cause, event.status, event.user) == (cause, 401, "")
        assert (event.origin.correlation, event.origin.user_agent) == ("c-17", "test")


@pytest.mark.parametrize(
    ("request_head", "status", "words", "cause"),
    [
        (head(), 401, b"\r\nWWW-Authenticate: Bearer\r\n", Cause.NO_TOKEN),
        (
            head(authorization=f"Bearer {token('alice', Scope.AGENT)}"),
            403,
            b"insufficient_scope",
            Cause.SCOPE,
        ),
        (head(method="POST"), 405, b"\r\nAllow: GET\r\n", Cause.NONSENSE),
        (head(authorization=f"Bearer {token()}", upgrade="h2c"), 426, b"Upgrade: websocket", Cause.NONSENSE),
        (
            head(authorization=f"Bearer {token()}", sec_websocket_protocol="chat"),
            426,
            SUBPROTOCOL.encode(),
            Cause.NONSENSE,
        ),
        (
            head(f"{CONNECT_PATH}?user=root", authorization=f"Bearer {token()}"),
            400,
            b"'user'",
            Cause.NONSENSE,
        ),
        (b"SSH-2.0-OpenSSH_10.0\r\n\r\n", 400, b"", Cause.NONSENSE),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431, b"", Cause.NONSENSE),
    ],
)
async def test_what_else_is_turned_away(
    autojump_clock: MockClock, request_head: bytes, status: int, words: bytes, cause: Cause
) -> None:
    async with open_door() as door:
        answer = await door.ask(request_head)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert words in answer
        [event] = door.turned_away()
        assert (event.cause, event.status) == (cause, status)


@pytest.mark.parametrize(
    ("words", "status"), [({"host": "r\xe9lay"}, 400), ({"host": "xn--0"}, 0), ({"x_any": "\xb9"}, 400)]
)
async def test_an_upgrade_that_cannot_be_decoded(
    autojump_clock: MockClock, words: dict[str, str], status: int
) -> None:
    async with open_door() as door:
        await door.ask(head(authorization=f"Bearer {token()}", **words))
        await trio.testing.wait_all_tasks_blocked()
        [event] = door.turned_away()
        assert (event.cause, event.status) == (Cause.NONSENSE, status)
        async with door.link(token()):
            pass


async def test_who_says_nothing_in_time_is_cut_off(autojump_clock: MockClock) -> None:
    async with open_door(PortSettings(handshake=10)) as door:
        stream = door.knock()
        began = trio.current_time()
        with suppress(trio.BrokenResourceError):
            for byte in head(authorization=f"Bearer {token()}"):
                await stream.send_all(bytes([byte]))
                await trio.sleep(1)
        assert 10 <= trio.current_time() - began <= 12
        assert door.causes() == [Cause.SLOW]


async def test_who_is_turned_away_holds_no_place_for_long(autojump_clock: MockClock) -> None:
    async with open_door(PortSettings(handshake=10)) as door:
        stream = door.knock()
        began = trio.current_time()
        await stream.send_all(head())
        assert await read_all(stream)
        assert trio.current_time() - began == pytest.approx(PARTING)


async def test_one_address_does_not_take_all_places(autojump_clock: MockClock) -> None:
    """Slow ones from one address are many; somebody else from there waits, and others notice nothing."""
    async with open_door(PortSettings(waiting=8, waiting_each=4)) as door:
        slow = [door.knock("198.51.100.1") for _ in range(4)]
        await trio.testing.wait_all_tasks_blocked()
        assert await door.ask(head(), "198.51.100.1") == b""
        assert door.causes() == [Cause.CROWD]
        async with door.link(token()):
            pass
        for stream in slow:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        async with door.link(token(), "198.51.100.1"):
            pass


async def test_a_balancer_may_have_all_places(autojump_clock: MockClock) -> None:
    async with open_door(PortSettings(waiting=8, waiting_each=1, trusted=TRUSTED)) as door:
        slow = [door.knock(BALANCER) for _ in range(8)]
        await trio.testing.wait_all_tasks_blocked()
        assert door.told == []
        assert await door.ask(head(), HERE) == b""
        assert door.causes() == [Cause.CROWD]
        assert len(slow) == 8


async def test_all_connections_are_numbered(autojump_clock: MockClock) -> None:
    async with open_door(PortSettings(connections=1)) as door:
        async with door.link(token()):
            assert await door.ask(head()) == b""
            assert door.causes() == [Cause.CROWD]
        await trio.testing.wait_all_tasks_blocked()
        async with door.link(token()):
            pass


async def test_a_flood_from_one_address(autojump_clock: MockClock) -> None:
    async with open_door(per_address=Rate(3, 60.0)) as door:
        request = head(authorization="Bearer nonsense")
        answers = [(await door.ask(request))[:12] for _ in range(4)]
        assert answers == [b"HTTP/1.1 401"] * 3 + [b"HTTP/1.1 429"]
        assert b"\r\nRetry-After: " in await door.ask(request)
        assert door.causes()[3:] == [Cause.RATE] * 2
        # Pages are not counted, nor are others.
        assert (await door.ask(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")).endswith(b"page")
        async with door.link(token(), "198.51.100.1"):
            pass


async def test_an_address_that_connects_without_end(autojump_clock: MockClock) -> None:
    async with open_door(PortSettings(arrivals=Rate(1, 1.0, 3), trusted=TRUSTED)) as door:
        page = b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n"
        answers = [await door.ask(page) for _ in range(5)]
        assert [answer[-4:] for answer in answers] == [b"page"] * 3 + [b""] * 2
        assert door.causes() == [Cause.CROWD] * 2
        for _ in range(5):
            assert (await door.ask(page, BALANCER)).endswith(b"page")
        await trio.sleep(1)
        assert (await door.ask(page)).endswith(b"page")


async def test_a_user_comes_too_often(autojump_clock: MockClock) -> None:
    tier = attrs.evolve(FREE, rates=Rates(requests=Rate(2, 60.0)))
    async with open_door(access=Access((tier,))) as door:
        for _ in range(2):
            async with door.link(token()):
                pass
        with pytest.raises(WebSocketRejectedError) as caught:
            async with door.link(token()):
                pass
        assert caught.value.status == 429
        [event] = door.turned_away()
        assert (event.cause, event.user) == (Cause.RATE, "alice")
        async with door.link(token("bob")):
            pass


async def test_a_user_has_too_many_connections(autojump_clock: MockClock) -> None:
    tier = attrs.evolve(FREE, most={Held.CONNECTIONS: 1})
    async with open_door(access=Access((tier,))) as door, door.link(token()):
        with pytest.raises(WebSocketRejectedError) as caught:
            async with door.link(token()):
                pass
        assert caught.value.status == 429
        assert [(event.cause, event.user) for event in door.turned_away()] == [(Cause.LIMIT, "alice")]
        async with door.link(token("bob")):
            pass


async def test_nobody_is_let_in_at_the_end(autojump_clock: MockClock) -> None:
    async with open_door() as door:
        door.port.draining = True
        answer = await door.ask(head(authorization=f"Bearer {token()}"))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in answer
        assert door.causes() == [Cause.DRAINING]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"), [(BALANCER, HERE, HERE), ("198.51.100.1", HERE, "198.51.100.1")]
)
async def test_whose_connection_it_is(
    autojump_clock: MockClock, peer: str, forwarded: str, address: str
) -> None:
    async with open_door(PortSettings(trusted=TRUSTED)) as door:
        await door.ask(head(x_forwarded_for=forwarded), peer)
        [event] = door.turned_away()
        assert event.origin.address == address


HEADER_V1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n"
HEADER_V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([203, 0, 113, 9]) + bytes(8)


@pytest.mark.parametrize("header", [HEADER_V1, HEADER_V2])
async def test_a_balancer_says_whose_connection_it_is(autojump_clock: MockClock, header: bytes) -> None:
    async with open_door(PortSettings(trusted=TRUSTED, proxy_protocol=True)) as door:
        answer = await door.ask(header + head(), BALANCER)
        assert answer.startswith(b"HTTP/1.1 401 ")
        # Who is not trusted cannot say so.
        answer = await door.ask(header + head(), "198.51.100.1")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert [event.origin.address for event in door.turned_away()] == [HERE, "198.51.100.1"]


PROXIED = PortSettings(trusted=TRUSTED, proxy_protocol=True)


async def test_a_client_of_a_balancer_does_not_take_all_places(autojump_clock: MockClock) -> None:
    async with open_door(attrs.evolve(PROXIED, waiting=8, waiting_each=2)) as door:
        slow = [door.knock(BALANCER) for _ in range(3)]
        for stream in slow:
            await stream.send_all(HEADER_V1)
        await trio.testing.wait_all_tasks_blocked()
        assert [(event.cause, event.origin.address) for event in door.turned_away()] == [(Cause.CROWD, HERE)]
        other = HEADER_V1.replace(HERE.encode(), b"198.51.100.1")
        assert (await door.ask(other + head(), BALANCER)).startswith(b"HTTP/1.1 401 ")
        for stream in slow:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await door.ask(HEADER_V1 + head(), BALANCER)).startswith(b"HTTP/1.1 401 ")


async def test_a_client_of_a_balancer_that_connects_without_end(autojump_clock: MockClock) -> None:
    async with open_door(attrs.evolve(PROXIED, arrivals=Rate(1, 1.0, 3))) as door:
        page = b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n"
        answers = [await door.ask(HEADER_V1 + page, BALANCER) for _ in range(5)]
        assert [answer[-4:] for answer in answers] == [b"page"] * 3 + [b""] * 2
        assert door.causes() == [Cause.CROWD] * 2
        # The balancer itself looks whether we live.
        for _ in range(5):
            assert (await door.ask(b"PROXY UNKNOWN\r\n" + page, BALANCER)).endswith(b"page")


@pytest.mark.parametrize("data", [head(), HEADER_V1[:-1], b""])
async def test_a_balancer_must_say_so(autojump_clock: MockClock, data: bytes) -> None:
    async with open_door(PortSettings(trusted=TRUSTED, proxy_protocol=True)) as door:
        stream = door.knock(BALANCER)
        await stream.send_all(data)
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert door.causes() == [Cause.NONSENSE]


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    made = make_certificate()
    return made.client_context(), made.server_context()


async def test_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    client, server = contexts
    async with open_door(PortSettings(tls=lambda: server)) as door:
        stream = trio.SSLStream(door.knock(), client, server_hostname="localhost", https_compatible=True)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
        assert (await stream.receive_some()).endswith(b"page")
        headers = [("Authorization", f"Bearer {token()}")]
        stream = trio.SSLStream(door.knock(), client, server_hostname="localhost", https_compatible=True)
        async with request_websocket(stream, "relay", CONNECT_PATH, headers=headers, subprotocol=SUBPROTOCOL):
            pass


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b""])
async def test_what_is_no_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext], data: bytes) -> None:
    _, server = contexts
    async with open_door(PortSettings(tls=lambda: server)) as door:
        stream = door.knock()
        await stream.send_all(data)
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        [event] = door.turned_away()
        assert (event.cause, event.status) == (Cause.NONSENSE, 0)
        assert event.detail.startswith("no TLS: ")

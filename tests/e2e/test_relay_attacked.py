"""A relay server under attack: what is refused is counted and audited, and other users notice nothing of it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio

from tests.support.relay_daemon import Served, load_relay, open_relay_daemon
from tests.support.relay_tokens import AUDIENCE, SECRET, make_token
from tests.support.tunnels import eventually
from tunnel_relay.agent.offering import Offering
from tunnel_relay.background import open_background
from tunnel_relay.client.reaching import Reaching
from tunnel_relay.errors import LinkLostError, WebSocketClosedError
from tunnel_relay.link import Link
from tunnel_relay.protocol.frames import Frame, FrameType, decode, encode
from tunnel_relay.protocol.greetings import Hello, Resume, read_go_away, write
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.protocol.upgrade import CONNECT_PATH, SUBPROTOCOL
from tunnel_relay.relay_stream import RelayStream, StreamRefusedError
from tunnel_relay.websocket import WebSocket

SECONDS = 120

# What an honest user would notice, however busy this machine is: without end, or until attackers are through.
NOTICED = 10.0

# Where attackers come from: this machine has all of 127.0.0.0/8.
ELSEWHERE = "127.0.0.66"

LIMITS = """\
[limits]
handshake = 5
upgrades_per_minute = 6
upgrade_burst = 40
[tiers.free]
opens_per_second = 10
streams = 32
"""
GRANT = (1 << 16).to_bytes(4, "big")
SESSION = SessionSettings(window=1 << 16)


@attrs.define(eq=False)
class World:
    """A relay server, and an honest user with a stream on which every message is answered in time."""

    served: Served
    nursery: trio.Nursery
    slowest: float = 0.0
    exchanges: int = 0

    async def keep(self, websocket: WebSocket, end: Offering | Reaching) -> None:
        """Keep *end* on a link."""
        link = Link(websocket, end.heed)
        end.attach(link)
        with suppress(LinkLostError):
            await link.run()

    async def talk(self, stream: RelayStream) -> None:
        """Exchange messages without end."""
        while True:
            began = time.monotonic()
            message = f"message {self.exchanges}".encode().ljust(500)
            await stream.send_all(message)
            answer = b""
            while len(answer) < len(message):
                data = await stream.receive_some(500)
                assert data, "alice's stream has ended"
                answer += data
            assert answer == message
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.exchanges += 1
            await trio.sleep(0.005)

    def counted(self, name: str) -> float:
        """Return a figure of the metrics."""
        return self.served.metrics().get(name, 0.0)

    def audited(self, action: str, user: str = "", **details: object) -> bool:
        """Return whether there is such an entry of a failure in the audit log."""
        return any(
            (line["action"], line["userId"], line["result"]) == (action, user, "failure")
            and details.items() <= dict(line["details"]).items()  # type: ignore[call-overload]
            for line in self.served.audited()
        )

    async def connect(self) -> trio.SocketStream:
        """Connect as an attacker."""
        address = self.served.address
        return await trio.open_tcp_stream(address.host, address.port, local_address=ELSEWHERE)

    async def ask(self, bearer: str) -> bytes:
        """Ask for a link as an attacker; return the answer."""
        head = (
            f"GET {CONNECT_PATH} HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {bearer}\r\n"
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
        )
        with suppress(trio.BrokenResourceError):
            async with await self.connect() as stream:
                await stream.send_all(head.encode())
                return bytes(await stream.receive_some(4096))
        return b""


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes."""
    with suppress(trio.BrokenResourceError):
        async for data in stream:
            await stream.send_all(data)


@asynccontextmanager
async def open_service() -> AsyncGenerator[int]:
    """Serve echo, and yield the port."""
    async with open_background() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_world(folder: Path) -> AsyncGenerator[World]:
    """Run a relay server and an honest user, who must have noticed nothing in the end."""
    revoked = folder / "revoked.txt"
    revoked.write_text("stolen\n")
    server = load_relay(folder, jwt='revoked = "revoked.txt"\n', more=LIMITS)
    with trio.fail_after(SECONDS):
        async with open_service() as port, open_relay_daemon(server) as served, open_background() as nursery:
            world = World(served, nursery)
            async with open_user(world, "alice", {"echo": ("127.0.0.1", port)}) as client:
                stream = client.open_stream("echo")
                await stream.wait_accepted()
                nursery.start_soon(world.talk, stream)
                yield world
                exchanged = world.exchanges
                await eventually(lambda: world.exchanges > exchanged + 10)
                assert world.slowest < NOTICED, "alice has noticed"
                # She can come back, too.
                async with served.link(make_token("alice")):
                    pass


@asynccontextmanager
async def open_user(
    world: World, user: str, services: dict[str, tuple[str, int]]
) -> AsyncGenerator[Reaching]:
    """Have a user of that name, who has an agent with *services*."""
    async with AsyncExitStack() as stack:
        query = "?agent=nas&instance=1"
        agent = await stack.enter_async_context(world.served.link(make_token(user), query))
        client = await stack.enter_async_context(world.served.link(make_token(user)))
        nursery = await stack.enter_async_context(open_background())
        reaching = Reaching(nursery, "nas", SESSION)
        nursery.start_soon(world.keep, agent, Offering(nursery, services, "1", SESSION))
        nursery.start_soon(world.keep, client, reaching)
        yield reaching
        nursery.cancel_scope.cancel()


def unsigned() -> str:
    """Return a token with ``alg=none``."""
    claims = {"sub": "alice", "exp": time.time() + 600, "aud": AUDIENCE, "scope": "client agent"}
    parts = [{"alg": "none", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, ""])


async def test_tokens_that_do_not_hold(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        bad = {
            "expired": make_token("alice", seconds=-60),
            "forged": make_token("alice", secret=SECRET[::-1]),
            "audience": make_token("alice", audience="somebody-else"),
            "revoked": make_token("alice", token_id="stolen"),
            "malformed": "nonsense",
        }
        for cause, token in bad.items():
            assert (await world.ask(token)).startswith(b"HTTP/1.1 401 "), cause
            assert world.counted(f'sproxy_relay_turned_away_total{{cause="{cause}"}}') == 1
        assert (await world.ask(unsigned())).startswith(b"HTTP/1.1 401 ")
        assert world.counted('sproxy_relay_turned_away_total{cause="forged"}') == 2
        assert world.counted('tunnel_errors_total{category="authentication"}') == len(bad) + 1
        for cause in bad:
            await eventually(lambda cause=cause: world.audited("authenticate", cause=cause))
        text = json.dumps(world.served.log) + json.dumps(world.served.audited())
        assert not any(token in text for token in [*bad.values(), unsigned()] if token != "nonsense")


async def test_a_flood_from_one_address(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        answers: list[bytes] = []

        async def flood() -> None:
            answers.extend([(await world.ask("nonsense"))[:12] for _ in range(25)])

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(flood)
        # Some are told so, and those beyond are not even asked in.
        assert set(answers) == {b"HTTP/1.1 401", b"HTTP/1.1 429", b""}
        assert answers.count(b"HTTP/1.1 401") < 60
        assert world.counted('sproxy_relay_turned_away_total{cause="rate"}') > 80
        assert world.counted('sproxy_relay_turned_away_total{cause="crowd"}') > 10
        await eventually(lambda: world.audited("rate-limit", cause="rate"))
        assert len(world.served.audited()) < 50, "a flood does not fill the audit log"


@pytest.mark.parametrize("dawdler", [b"G", b"GET / HTTP/1.1\r\nX: "])
async def test_many_that_say_nothing_for_long(tmp_path: Path, dawdler: bytes) -> None:
    async with open_world(tmp_path) as world, open_background() as nursery:
        ended = 0

        async def dawdle() -> None:
            nonlocal ended
            with suppress(trio.BrokenResourceError, OSError):
                async with await world.connect() as stream:
                    while True:
                        await stream.send_all(dawdler)
                        with trio.move_on_after(0.2):
                            if not await stream.receive_some(100):
                                break
            ended += 1

        for _ in range(100):
            nursery.start_soon(dawdle)
        await eventually(lambda: world.counted('sproxy_relay_turned_away_total{cause="crowd"}') >= 36)
        # From elsewhere one comes in at once.
        async with world.served.link(make_token("bob")):
            pass
        # They go on without end, if they are let.
        await eventually(lambda: ended == 100)
        assert world.counted('sproxy_relay_turned_away_total{cause="slow"}') == 64
        await eventually(lambda: world.audited("error", cause="slow"))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (bytes(2 << 20), 1009),
        (encode([Frame(FrameType.DATA, 1, 1, 1, bytes(65 * 1024))]), 1002),
        (b"\xff" * 22, 1002),
        (encode([Frame(FrameType.ACK, 1)])[:-1], 1002),
    ],
)
async def test_frames_that_are_too_long_or_nonsense(tmp_path: Path, message: bytes, code: int) -> None:
    async with open_world(tmp_path) as world:
        async with world.served.link(make_token("mallory")) as websocket:
            with suppress(WebSocketClosedError):
                await websocket.send_binary(message)
            with pytest.raises(WebSocketClosedError) as caught:
                await websocket.receive()
            assert caught.value.code == code
        await eventually(lambda: world.audited("error", "mallory"))
        assert world.counted('sproxy_relay_links_closed_total{ending="broken",role="client"}') == 1


async def greet(websocket: WebSocket, greeting: Hello | Resume, label: int = 1) -> Frame:
    """Say *greeting*, and return what is answered to it."""
    kind = FrameType.HELLO if isinstance(greeting, Hello) else FrameType.RESUME
    await websocket.send_binary(encode([Frame(kind, label, payload=write(greeting))]))
    while True:
        message = await websocket.receive()
        assert isinstance(message, bytes)
        for frame in decode(message):
            if frame.session == label and frame.type in (FrameType.WELCOME, FrameType.GOAWAY):
                return frame


async def test_a_window_that_is_overrun(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_service() as port:
        services = {"echo": ("127.0.0.1", port)}
        async with open_user(world, "mallory", services), world.served.link(make_token("mallory")) as rude:
            assert (await greet(rude, Hello(agent="nas", token="6" * 32, fence=1))).type is FrameType.WELCOME
            frames = [Frame(FrameType.OPEN, 1, 1, 1, GRANT + b"echo")]
            frames += [Frame(FrameType.DATA, 1, 1, 2 + number, bytes(50_000)) for number in range(8)]
            await rude.send_binary(encode(frames))
            await eventually(lambda: world.counted("sproxy_relay_sessions_refused_total") == 1)
            await eventually(lambda: world.audited("error", "mallory"))


async def test_a_session_that_is_replayed(tmp_path: Path) -> None:
    """Neither its own user's old words take a session over, nor anybody else's new ones."""
    async with open_world(tmp_path) as world, open_user(world, "bob", {}):
        words = Resume(agent="nas", instance="1", token="6" * 32, fence=1, received=0)
        async with world.served.link(make_token("bob")) as first:
            hello = Hello(agent="nas", token=words.token, fence=1)
            assert (await greet(first, hello)).type is FrameType.WELCOME
            for user, detail in (
                ("bob", "a later connection has the session"),
                ("mallory", "no agent 'nas' is connected, nor any other of 'mallory'"),
                ("alice", "the session is not known here (any more)"),
            ):
                async with world.served.link(make_token(user)) as second:
                    answer = await greet(second, words)
                    assert answer.type is FrameType.GOAWAY
                    assert read_go_away(answer.payload).detail == detail
            await first.send_binary(encode([Frame(FrameType.OPEN, 1, 1, 1, GRANT + b"none")]))
            message = await first.receive()
            assert isinstance(message, bytes)
            assert FrameType.REFUSED in {frame.type for frame in decode(message)}, "it is bob's as before"
        await eventually(lambda: world.audited("error", "bob", detail="a later connection has the session"))
        assert world.counted("sproxy_relay_sessions_refused_total") == 2


async def refused(opened: Callable[[], Awaitable[None]]) -> StreamRefusedError | None:
    try:
        await opened()
    except StreamRefusedError as exc:
        return exc
    return None


async def test_streams_beyond_all_bounds(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, open_service() as port:
        async with open_user(world, "mallory", {"echo": ("127.0.0.1", port)}) as client:
            streams = [client.open_stream("echo") for _ in range(60)]
            outcomes = [await refused(stream.wait_accepted) for stream in streams]
            reasons = [outcome.reason for outcome in outcomes if outcome]
            # 40, unless this machine is so slow that they do not come all at once.
            assert set(reasons) == {Reason.LIMIT}
            assert 20 <= len(reasons) <= 40
            for stream in streams:
                stream.reset(Reason.UNSPECIFIED)
        refusals = 'sproxy_relay_rate_violations_total{act="open",result="refused"}'
        await eventually(lambda: world.counted(refusals) == len(reasons))
        assert world.counted('sproxy_relay_rate_violations_total{act="open",result="delayed"}') >= 10
        await eventually(lambda: world.audited("rate-limit", "mallory", act="open", refused=True))
        await eventually(lambda: world.counted("sproxy_relay_sessions") == 1)

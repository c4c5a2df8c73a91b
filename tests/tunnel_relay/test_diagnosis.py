"""The way to an agent by a relay: what may be wrong with the token, the upgrade and the agent."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio

from tests.support.relay_files import claims_token
from tests.support.relay_tokens import KEYS, make_token
from tests.support.stages import failure_of, outcomes
from tunnel_relay.agent.running import AgentSettings, open_agent
from tunnel_relay.background import open_background
from tunnel_relay.category import Category
from tunnel_relay.diagnosis import approach_relay, diagnose, how_long, judge_token, offer_token
from tunnel_relay.dial_settings import DialSettings
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.frames import Frame, FrameType, encode
from tunnel_relay.protocol.greetings import GoAway, Mode, write
from tunnel_relay.protocol.tokens import Scope, Verifier
from tunnel_relay.protocol.upgrade import SUBPROTOCOL
from tunnel_relay.server.port import PublicPort
from tunnel_relay.server.service import RelayService
from tunnel_relay.stages import Course, Notes, Stage, Step, TroubleError
from tunnel_relay.websocket import accept_websocket

NOW = 1_800_000_000.0


@attrs.frozen
class Tokens:
    """Always the same."""

    token: str

    async def __call__(self, *, anew: bool) -> str:
        await trio.lowlevel.checkpoint()
        return self.token


@asynccontextmanager
async def relay() -> AsyncGenerator[str]:
    """A relay server; yields its URL."""
    service = RelayService(Verifier(KEYS, None), time.time, lambda _event: None)

    async def other(stream: trio.abc.Stream, *_args: object) -> None:
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    port = PublicPort(service, other)
    async with serving(port.serve_socket) as url:
        yield url


@asynccontextmanager
async def serving(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncGenerator[str]:
    """Something that listens; yields its URL."""
    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"


@asynccontextmanager
async def agent(url: str, name: str = "nas") -> AsyncGenerator[None]:
    """An agent of alice, connected."""
    linked = trio.Event()
    settings = AgentSettings(name=name, services={}, dial=DialSettings(endpoints=[Endpoint(url=url)]))
    tokens = Tokens(make_token("alice", Scope.AGENT, audience=None))
    async with open_agent(
        settings, tokens, rng=lambda: 0.5, unix_time=time.time, notify=lambda _event: linked.set()
    ):
        await linked.wait()
        yield


async def stages_by(
    url: str, token: str = "", name: str = "nas", mode: Mode = Mode.END_TO_END
) -> tuple[Stage, ...]:
    """Return the stages to the agent of that *name*."""
    dial = DialSettings(endpoints=[Endpoint(url=url)])
    token = token or make_token("alice", Scope.CLIENT, audience=None)
    with trio.fail_after(20):
        found = await diagnose(dial, Tokens(token), agent=name, mode=mode)
    return found[url]


async def test_the_whole_way() -> None:
    async with relay() as url, agent(url):
        for name in ("nas", ""):
            stages = await stages_by(url, name=name)

            assert outcomes(stages) == {
                "credentials": "ok",
                "names": "ok",
                "reach": "ok",
                "tls": "skipped",
                "handshake": "ok",
            }
        assert stages[0].found == "token for client, good for 10 min"
        assert stages[-1].found.endswith(" ms, the agent answers")


async def test_every_server_is_tried() -> None:
    async with relay() as url, agent(url):
        dial = DialSettings(endpoints=[Endpoint(url="ws://127.0.0.1:1"), Endpoint(url=url)])
        token = Tokens(make_token("alice", audience=None))
        found = await diagnose(dial, token, agent="nas")

    assert list(found) == ["ws://127.0.0.1:1", url]
    assert failure_of(found["ws://127.0.0.1:1"]).step is Step.REACH
    assert found[url][-1].outcome == "ok"


async def test_no_such_agent() -> None:
    async with relay() as url:
        stage = failure_of(await stages_by(url))
        assert (stage.step, stage.cause) == (
            Step.HANDSHAKE,
            "no agent 'nas' is connected, nor any other of 'alice'",
        )
        assert stage.category is Category.SERVER
        assert "relay-agent" in stage.fix

        async with agent(url, "one"), agent(url, "two"):
            stage = failure_of(await stages_by(url, name=""))
            assert stage.cause == "say which agent: there is 'one', 'two'"
            assert (stage.fix, stage.category) == ('write agent = "NAME"', Category.CONFIGURATION)

            stage = failure_of(await stages_by(url, name="one", mode=Mode.RELAY_SSH))
            assert stage.cause == "this relay has no mode 'relay-ssh'"


@pytest.mark.parametrize(
    ("token", "cause", "category"),
    [
        (
            make_token("alice", secret="x" * 32),
            "the relay does not accept the token: ",
            Category.AUTHENTICATION,
        ),
        (make_token("alice", Scope.AGENT), "the token is for agent, not for client", Category.AUTHENTICATION),
        (make_token("alice", seconds=-7300), "the token expired 2 h ago", Category.AUTHENTICATION),
    ],
)
async def test_a_token_that_is_of_no_use(token: str, cause: str, category: Category) -> None:
    async with relay() as url, agent(url):
        stage = failure_of(await stages_by(url, token))

    assert stage.cause.startswith(cause)
    assert "--scope client" in stage.fix or "sproxy relay-token" in stage.fix
    assert stage.category is category


@pytest.mark.parametrize(
    ("token", "cause"),
    [
        ("hunter2", "the token is no JWT"),
        (claims_token(scope="client"), "the token does not say until when it holds"),
        (claims_token(scope="", exp=NOW + 9), "the token is for nothing, not for client"),
    ],
)
def test_tokens_that_no_relay_accepts(token: str, cause: str) -> None:
    with pytest.raises(TroubleError, match=cause):
        judge_token(Notes(Step.CREDENTIALS, 0), token, "client", NOW)


def test_a_token_that_expires_soon() -> None:
    notes = Notes(Step.CREDENTIALS, 0)
    judge_token(notes, claims_token(scope="client", exp=NOW + 200), "client", NOW)

    assert [warning.cause for warning in notes.warnings] == ["the token expires in 3 min"]


@pytest.mark.parametrize(
    ("answer", "cause", "category"),
    [
        (b"404 Not Found", "the server has no relay at /api/tunnel/connect", Category.CONFIGURATION),
        (b"403 Forbidden", "the relay forbids it: no reason is given", Category.AUTHENTICATION),
        (b"429 Slow\r\nRetry-After: 7", "the relay takes no more connections within 7 s: ", Category.SERVER),
        (b"426 Old", "the server speaks another version than sproxy-relay.v1: ", Category.PROTOCOL),
        (b"502 Bad", "the server has trouble of its own: HTTP status 502", Category.SERVER),
        (b"200 OK", "the WebSocket upgrade was answered with HTTP status 200", Category.CONFIGURATION),
        (b"SSH-2.0", "", Category.NETWORK),
    ],
)
async def test_answers_to_the_upgrade(answer: bytes, cause: str, category: Category) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        head = b"" if answer.startswith(b"SSH") else b"HTTP/1.1 "
        await stream.send_all(head + answer + b"\r\nContent-Length: 0\r\n\r\n")

    async with serving(refuse) as url:
        stage = failure_of(await stages_by(url))

    assert stage.step is Step.HANDSHAKE
    assert stage.cause.startswith(cause)
    assert stage.fix
    if cause:
        assert stage.category is category


@pytest.mark.parametrize("word", ["the relay is being shut down", ""])
async def test_a_relay_that_does_not_want_us(word: str) -> None:
    async def turn_away(stream: trio.SocketStream) -> None:
        async with accept_websocket(stream, subprotocol=SUBPROTOCOL) as websocket:
            await websocket.receive()
            if word:
                frame = Frame(FrameType.GOAWAY, payload=write(GoAway(lost=False, detail=word)))
                await websocket.send_binary(encode([frame]))
                await trio.sleep_forever()

    async with serving(turn_away) as url:
        stage = failure_of(await stages_by(url))

    assert stage.step is Step.HANDSHAKE
    assert stage.cause == (word or "the WebSocket was closed with code 1000")


async def test_an_agents_token_is_offered_without_becoming_an_agent() -> None:
    async def offer(token: str) -> None:
        async with relay() as url:
            dial = DialSettings(endpoints=[Endpoint(url=url)])
            with trio.fail_after(10):
                stream = await approach_relay(Course((Step.NAMES, Step.REACH, Step.TLS)), dial, url)
                try:
                    await offer_token(stream, url, token)
                finally:
                    await trio.aclose_forcefully(stream)

    for scopes in ((Scope.AGENT,), (Scope.AGENT, Scope.CLIENT)):
        await offer(make_token("alice", *scopes, audience=None))
    with pytest.raises(TroubleError, match="does not accept the token"):
        await offer(make_token("alice", Scope.AGENT, secret="y" * 32))


@pytest.mark.parametrize(
    ("seconds", "told"), [(5, "5 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 days")]
)
def test_lengths_of_time(seconds: float, told: str) -> None:
    assert how_long(seconds) == told

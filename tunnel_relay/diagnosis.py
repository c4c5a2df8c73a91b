"""What is wrong with the way to an agent: the stages from the token to the agent's answer, by a relay server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import trio

from tunnel_relay.approach import Server, approach
from tunnel_relay.background import open_background
from tunnel_relay.category import Category, category_of
from tunnel_relay.client.reaching import Reaching
from tunnel_relay.dial_settings import DialSettings, TokenSource, connect_url
from tunnel_relay.errors import LinkLostError, WebSocketRejectedError
from tunnel_relay.link import Link
from tunnel_relay.protocol.frames import LINK, Frame, FrameType
from tunnel_relay.protocol.greetings import Mode, read_go_away
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.protocol.unverified import read_token
from tunnel_relay.protocol.upgrade import SUBPROTOCOL
from tunnel_relay.sessions import LiveSession
from tunnel_relay.stages import Course, Notes, Stage, Step, Trouble, TroubleError, split_advice
from tunnel_relay.websocket import WebSocket, request_websocket

STEPS = (Step.CREDENTIALS, Step.NAMES, Step.REACH, Step.TLS, Step.HANDSHAKE)

# Seconds that a token should have left.
SHORT = 300.0

TRUST = 'name its certificate, or that of its authority: ca = "ca.pem"'
NEW_TOKEN = 'issue a new one with "sproxy relay-token"'


async def diagnose(
    dial: DialSettings, token: TokenSource, *, agent: str = "", mode: Mode = Mode.END_TO_END
) -> dict[str, tuple[Stage, ...]]:
    """Return the stages on the way to an agent (see `Reaching`) by each relay server, whose URLs are the keys.

    All are tried at once, over connections of their own.
    """
    found: dict[str, tuple[Stage, ...]] = {}

    async def try_one(url: str) -> None:
        course = Course(STEPS)

        async def work() -> None:
            shown = await check_token(course, token, "client")
            async with open_way(course, dial, url, shown, agent=agent, mode=mode):
                pass

        found[url] = await course.run(work)

    async with trio.open_nursery() as nursery:
        for endpoint in dial.endpoints:
            nursery.start_soon(try_one, endpoint.url)
    return {endpoint.url: found[endpoint.url] for endpoint in dial.endpoints}


async def check_token(course: Course, source: TokenSource, scope: str) -> str:
    """Make the step CREDENTIALS: see what the token says of itself. Returns it."""
    with course.stage(Step.CREDENTIALS) as notes:
        token = (await source(anew=True)).strip()
        judge_token(notes, token, scope, course.unix_time())
        return token


def judge_token(notes: Notes, token: str, scope: str, now: float) -> None:
    """Note what *token* says of itself; it has to be good for *scope*.

    Raises:
      TroubleError: no relay would accept it.

    """
    said = read_token(token)
    if said is None:
        raise TroubleError(
            Trouble(
                "the token is no JWT",
                'copy the whole line that "sproxy relay-token" prints',
                Category.AUTHENTICATION,
            )
        )
    if said.expires is None:
        raise TroubleError(
            Trouble("the token does not say until when it holds", NEW_TOKEN, Category.AUTHENTICATION)
        )
    left = said.expires - now
    if left <= 0:
        ago = how_long(-left)
        raise TroubleError(Trouble(f"the token expired {ago} ago", NEW_TOKEN, Category.AUTHENTICATION))
    if scope not in said.scopes:
        held = " ".join(sorted(said.scopes)) or "nothing"
        raise TroubleError(
            Trouble(
                f"the token is for {held}, not for {scope}",
                f"issue one with --scope {scope}",
                Category.AUTHENTICATION,
            )
        )
    notes.find(f"token for {scope}, good for {how_long(left)}")
    if left < SHORT:
        notes.warn(f"the token expires in {how_long(left)}", "see to it that a newer one is there in time")


def how_long(seconds: float) -> str:
    """Return a length of time in its largest unit."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@asynccontextmanager
async def open_way(
    course: Course, dial: DialSettings, url: str, token: str, *, agent: str, mode: Mode
) -> AsyncGenerator[LiveSession]:
    """Hold a session with the agent by the relay at *url*: the steps from NAMES to HANDSHAKE.

    Raises:
      StageFailedError: there is none.

    """
    async with AsyncExitStack() as stack:
        stream = await approach_relay(course, dial, url)
        stack.push_async_callback(trio.aclose_forcefully, stream)
        with course.stage(Step.HANDSHAKE) as notes:
            began = trio.current_time()
            websocket = await stack.enter_async_context(_upgraded(stream, url, token))
            notes.find(f"WebSocket in {1e3 * (trio.current_time() - began):.0f} ms")
            notes.advice = "see whether the agent's machine is awake, and look into the agent's log"
            nursery: trio.Nursery = await stack.enter_async_context(open_background())
            live = await _greet(nursery, Link(websocket, _ignore, dial.link), agent, mode)
            notes.find(f"{f'agent {agent!r}' if agent else 'the agent'} answers")
        yield live


async def approach_relay(course: Course, dial: DialSettings, url: str) -> trio.abc.Stream:
    """Return a connection to the relay at *url*: the steps NAMES, REACH and TLS. The caller closes it.

    Raises:
      StageFailedError: there is none.

    """
    return await approach(course, Server.of_url(url, dial.proxy(url), dial.ssl_context, TRUST))


@asynccontextmanager
async def _upgraded(stream: trio.abc.Stream, url: str, token: str) -> AsyncGenerator[WebSocket]:
    """Hold the WebSocket of a client on *stream*; raises `TroubleError`."""
    parts = urlsplit(connect_url(url, ()))
    try:
        async with request_websocket(
            stream,
            parts.netloc,
            parts.path,
            headers=[("Authorization", f"Bearer {token}")],
            subprotocol=SUBPROTOCOL,
        ) as websocket:
            yield websocket
    except WebSocketRejectedError as exc:
        raise TroubleError(rejection(exc, parts.path)) from exc


async def offer_token(stream: trio.abc.Stream, url: str, token: str) -> None:
    """See whether the relay at *url* accepts an agent's *token* on *stream*, without becoming an agent.

    Clients need another scope than agents do: that the relay misses it is said by one who has accepted the token.

    Raises:
      TroubleError: it does not.

    """
    try:
        async with _upgraded(stream, url, token):
            pass
    except TroubleError as exc:
        rejected = exc.__cause__
        forbidden = isinstance(rejected, WebSocketRejectedError) and rejected.status == HTTPStatus.FORBIDDEN
        if not forbidden or "scope" not in exc.trouble.cause:
            raise


def rejection(exc: WebSocketRejectedError, path: str) -> Trouble:
    """Return what it means that the upgrade on *path* was answered so."""
    category, said = category_of(exc), exc.detail
    match exc.status:
        case HTTPStatus.UNAUTHORIZED:
            cause = (
                f"the relay does not accept the token: {said}"
                if said
                else "the relay does not accept the token"
            )
            return Trouble(cause, f"{NEW_TOKEN}, with this relay's key and audience", category)
        case HTTPStatus.FORBIDDEN:
            return Trouble(f"the relay forbids it: {said or 'no reason is given'}", NEW_TOKEN, category)
        case HTTPStatus.NOT_FOUND:
            return Trouble(
                f"the server has no relay at {path}",
                "correct the url, or what forwards to the relay",
                category,
            )
        case HTTPStatus.TOO_MANY_REQUESTS:
            wait = f" within {exc.retry_after:.0f} s" if exc.retry_after else " for now"
            return Trouble(
                f"the relay takes no more connections{wait}: {said or 'its limits are reached'}",
                "wait, or raise its limits",
                category,
            )
        case HTTPStatus.UPGRADE_REQUIRED:
            return Trouble(
                f"the server speaks another version than {SUBPROTOCOL}: {said}",
                "update the older one",
                category,
            )
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Trouble(
                f"the server has trouble of its own: HTTP status {status}{f', {said}' if said else ''}",
                "look into its log, and see whether the relay behind it runs",
                category,
            )
        case status:
            return Trouble(
                f"the WebSocket upgrade was answered with HTTP status {status}{f', {said}' if said else ''}",
                "see whether a proxy in between lets WebSockets through",
                category,
            )


async def _greet(nursery: trio.Nursery, link: Link, agent: str, mode: Mode) -> LiveSession:
    """Return a session with the agent over *link*, which is carried by *nursery*.

    Raises:
      TroubleError: there is no such agent.
      LinkLostError: the relay has ended the link.

    """
    reaching = Reaching(nursery, agent, SessionSettings(), mode)
    live = reaching.begin()

    def heed(frame: Frame) -> None:
        if frame.session != LINK:
            reaching.heed(frame)
        elif frame.type is FrameType.GOAWAY:
            live.lose(read_go_away(frame.payload).detail)

    async def carry() -> None:
        try:
            await link.run()
        except LinkLostError as exc:
            live.lose(str(exc))

    link.heed = heed
    nursery.start_soon(carry)
    reaching.attach(link)
    while not reaching.attached:
        if reaching.why_not is not None:
            if reaching.denied:
                raise TroubleError(Trouble(*split_advice(reaching.why_not), Category.AUTHENTICATION))
            raise TroubleError(_no_agent(reaching.why_not))
        if live.session.lost is not None:
            raise LinkLostError(live.session.lost)
        await reaching.changed.wait()
    return live


def _no_agent(said: str) -> Trouble:
    if said.startswith("say which"):
        return Trouble(said, 'write agent = "NAME"', Category.CONFIGURATION)
    if said.startswith("no agent"):
        return Trouble(
            said, 'start "sproxy relay-agent" there, or see its log; or correct agent', Category.SERVER
        )
    return Trouble(said, "look into the relay's log, and the agent's", Category.SERVER)


def _ignore(_frame: Frame) -> None:
    pass

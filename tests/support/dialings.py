"""A real server on loopback that does as it is told, and an end that notes what it is given."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import jwt
import trio

from tunnel_relay.background import open_background
from tunnel_relay.dial_events import DialEvent
from tunnel_relay.dial_settings import DialSettings, TokenSource
from tunnel_relay.dialing import Dialing
from tunnel_relay.errors import LinkLostError, TokenUnavailableError, WebSocketError
from tunnel_relay.link import Link
from tunnel_relay.policy.backoff import BackoffSettings
from tunnel_relay.policy.selector import Endpoint, SelectorSettings
from tunnel_relay.protocol.frames import Frame
from tunnel_relay.protocol.upgrade import SUBPROTOCOL
from tunnel_relay.websocket import WebSocket, accept_websocket

SECRET = "a secret of this test, long enough"

QUICK = SelectorSettings(
    health_check_interval=0.02, failback_delay=0.05, backoff=BackoffSettings(first=0.01, longest=0.05)
)


def token(seconds: float = 3600.0, number: int = 0) -> str:
    return jwt.encode({"exp": int(time.time() + seconds), "n": number}, SECRET, algorithm="HS256")


@attrs.define(eq=False)
class Server:
    """Lets in whoever shows one of *accepted*, or anybody."""

    accepted: Sequence[str] | None = None
    status: bytes = b""
    """What everybody is answered instead."""
    hold: trio.Event | None = None
    """What a request for a link waits for."""
    tried: trio.Event = attrs.field(factory=trio.Event)
    """Set when a link is asked for, whatever comes of it."""
    url: str = ""
    heads: list[bytes] = attrs.field(factory=list[bytes])
    frames: list[Frame] = attrs.field(factory=list[Frame])
    heard: trio.Event = attrs.field(factory=trio.Event)
    links: list[Link] = attrs.field(factory=list[Link])
    websockets: list[WebSocket] = attrs.field(factory=list[WebSocket])

    async def serve(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            if not data:
                return
            head += bytes(data)
        self.heads.append(head)
        if self.status or (
            self.accepted is not None and not any(each.encode() in head for each in self.accepted)
        ):
            line = self.status or b"401 Unauthorized"
            if head.startswith(b"GET /api/tunnel/health") and not self.status:
                line = b"200 OK"
            await stream.send_all(b"HTTP/1.1 " + line + b"\r\nContent-Length: 0\r\n\r\n")
            return
        if head.startswith(b"GET /api/tunnel/health"):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        self.tried.set()
        if self.hold is not None:
            await self.hold.wait()
        with suppress(WebSocketError, LinkLostError, trio.BrokenResourceError):
            async with accept_websocket(stream, initial=head, subprotocol=SUBPROTOCOL) as websocket:
                link = Link(websocket, self.heed)
                self.links.append(link)
                self.websockets.append(websocket)
                await link.run()

    def heed(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.heard.set()


@attrs.define(eq=False)
class NotingRemains:
    """What goes on over a link that was left, until it is *over*."""

    frames: list[Frame] = attrs.field(factory=list[Frame])
    detached: int = 0
    over: trio.Event = attrs.field(factory=trio.Event)

    def heed(self, frame: Frame) -> None:
        self.frames.append(attrs.evolve(frame, payload=bytes(frame.payload)))

    def detach(self) -> None:
        self.detached += 1

    async def wait_over(self) -> None:
        await self.over.wait()


@attrs.define(eq=False)
class NotingEnd:
    """Notes what it is told."""

    attached: list[Link] = attrs.field(factory=list[Link])
    detached: int = 0
    wanted: bool = False
    stays: bool = False
    frames: list[Frame] = attrs.field(factory=list[Frame])
    free: trio.Event = attrs.field(factory=trio.Event)
    """What is waited for where it stays."""
    remains: NotingRemains | None = None

    async def wait_free(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.stays:
            await self.free.wait()

    def leave(self) -> NotingRemains | None:
        return self.remains

    def attach(self, link: Link) -> None:
        self.attached.append(link)

    def detach(self) -> None:
        self.detached += 1

    def heed(self, frame: Frame) -> None:
        self.frames.append(attrs.evolve(frame, payload=bytes(frame.payload)))


@attrs.define(eq=False)
class Tokens:
    """Gives one after the other out, the next one whenever it is asked *anew*; the last one for ever."""

    texts: list[str]

    async def __call__(self, *, anew: bool) -> str:
        await trio.lowlevel.checkpoint()
        if anew and len(self.texts) > 1:
            del self.texts[0]
        if not self.texts[0]:
            raise TokenUnavailableError("log in first")
        return self.texts[0]


@attrs.define(eq=False)
class Watched:
    """A `Dialing` and what it has told."""

    dialing: Dialing
    end: NotingEnd
    events: list[DialEvent]
    _changed: list[trio.Event]

    async def wait_for(self, kind: type[DialEvent], number: int = 1) -> DialEvent:
        """Wait for so many events of a kind; return the last of them."""
        while True:
            found = [event for event in self.events if isinstance(event, kind)]
            if len(found) >= number:
                return found[number - 1]
            event = trio.Event()
            self._changed.append(event)
            await event.wait()


@asynccontextmanager
async def serving(*servers: Server) -> AsyncGenerator[None]:
    async with open_background() as nursery:
        for server in servers:
            listeners = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
            server.url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield


@asynccontextmanager
async def watching(
    endpoints: Sequence[Endpoint], tokens: TokenSource, *, query: Sequence[tuple[str, str]] = ()
) -> AsyncGenerator[Watched]:
    events: list[DialEvent] = []
    waiting: list[trio.Event] = []

    def notify(event: DialEvent) -> None:
        events.append(event)
        while waiting:
            waiting.pop().set()

    end = NotingEnd()
    settings = DialSettings(endpoints=endpoints, query=query, selector=QUICK, connect=5)
    watched = Watched(
        Dialing(end, settings, tokens, rng=lambda: 0.5, unix_time=time.time, notify=notify),
        end,
        events,
        waiting,
    )
    with trio.fail_after(20):
        async with open_background() as nursery:
            nursery.start_soon(watched.dialing.run)
            yield watched

"""Links between the servers of one relay: a session whose client is here and whose agent is at another server.

The server that has the client dials the one that has the agent, once, and leads all such sessions over that link. They
have labels on it as on any other; what a client says first goes with a line before it that says which agent is meant.
So each of the two is a switch and nothing more, and where the link is lost, both ends hear that their session leads
nowhere for now, and go on with it over another one.

Who may come is told by TLS: both ends show certificates of the relay's own authority. Processes on one machine have
sockets that are theirs alone instead. What the other server says of a user is believed.
"""

from __future__ import annotations

import json
import math
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import cast

import attrs
import trio

from tunnel_relay.background import open_background
from tunnel_relay.errors import LinkLostError, RelayError, RelayProtocolError, WebSocketError
from tunnel_relay.link import Link, LinkSettings
from tunnel_relay.policy.access import Denial
from tunnel_relay.protocol.frames import LINK, Frame
from tunnel_relay.server.switch import Port, Switch
from tunnel_relay.websocket import WebSocket, accept_websocket, open_websocket, request_websocket

# The version of all that travels between servers.
SUBPROTOCOL = "sproxy-relay-peer.v1"
PATH = "/api/tunnel/peer"

# What the address of a server begins with that is another process of the same user on this machine, behind a socket
# that nobody else can reach: there is nothing to prove.
UNIX = "unix:"

# Seconds until a link is up, and after which one that carries nothing is closed.
CONNECT = 5.0
IDLE = 60.0

# Servers are near each other: what is silent for so long is gone.
PEER_LINK = LinkSettings(heartbeat=5.0, silence=15.0)

# What a process of this machine is called, which has no address.
NEIGHBOUR = "another worker"

LOST = "the connection between the relay's servers is lost"

# Names of 64 characters, which JSON may write with 12 bytes each, and a user of any usual length.
_MAX_ROUTE = 8192


class PeerAwayError(RelayError):
    """There is no link to another server; the message says why."""


@attrs.frozen
class PeerLinked:
    """There is a link to the server at *address*, or from it where that is only known by its IP address."""

    address: str


@attrs.frozen
class PeerLost:
    """There is none any more, or it did not come about."""

    address: str
    reason: str


PeerEvent = PeerLinked | PeerLost


@attrs.frozen
class Route:
    """Which agent a session is to be joined to.

    Where there is a *tier*, the user's, that is what the server itself has for the agent (`Mode.RELAY_SSH`), and
    *instance* is the server's.
    """

    user: str
    agent: str
    instance: str
    tier: str | None = None

    def encode(self) -> bytes:
        """Return the line that goes before what the client has said."""
        return json.dumps(attrs.asdict(self)).encode() + b"\n"


def read_route(payload: bytes) -> tuple[Route, bytes]:
    """Return the route, and what the client has said.

    Raises:
      RelayProtocolError: there is none.

    """
    line, _, greeting = payload.partition(b"\n")
    try:
        said: object = json.loads(line) if len(line) <= _MAX_ROUTE else None
    except (ValueError, RecursionError) as exc:
        raise RelayProtocolError("a session comes without its route") from exc
    match said:
        case {
            "user": str(user),
            "agent": str(agent),
            "instance": str(instance),
            "tier": str() | None as tier,
        }:
            return Route(user, agent, instance, tier), greeting
        case _:
            raise RelayProtocolError("a session comes without its route")


class _PeerPort(Port):
    """The end of a link to another server: what is nonsense there is so for one session, and no other one's loss."""

    def heed(self, frame: Frame) -> None:
        """See `Port.heed`."""
        if frame.session == LINK:
            super().heed(frame)
            return
        try:
            super().heed(frame)
        except RelayProtocolError as exc:
            self.part(frame.session, str(exc))
            self.go_away(frame.session, str(exc))


class Exit(_PeerPort):
    """The end of a link to another server: agents are behind it."""


class Entrance(_PeerPort):
    """The end of a link from another server: clients of all users are behind it."""

    def _begin(self, frame: Frame) -> None:
        self.part(frame.session, "the client comes another way")
        route, greeting = read_route(bytes(frame.payload))
        far = self._find(route)
        if isinstance(far, Denial):
            self.go_away(frame.session, far.detail, lost=True)
        elif far is None:
            self.go_away(frame.session, f"the agent {route.agent!r} has just left the server that it was at")
        else:
            self._lead(attrs.evolve(frame, payload=greeting), far)

    def _find(self, route: Route) -> Port | Denial | None:
        if route.tier is None:
            return self.switch.find(route.user, route.agent, route.instance)
        client = Port(self.switch, route.user, tier=route.tier)
        return self.switch.keep(client, route.agent, route.instance)


@attrs.define(eq=False)
class _Dialed:
    port: Exit
    settled: trio.Event = attrs.field(factory=trio.Event)
    failure: str = ""


@attrs.define(eq=False)
class Peers:
    """The links to other servers, which are made when something is to go over them.

    Attributes:
      nursery: Runs them.
      switch: Has the clients.
      context: Proves who we are, and knows whom to believe; None for no TLS, where addresses begin with `UNIX`.
      notify: Called with what happens.
      settings: How to notice that a link is dead.

    """

    nursery: trio.Nursery
    switch: Switch
    context: ssl.SSLContext | None
    notify: Callable[[PeerEvent], None]
    settings: LinkSettings = PEER_LINK
    _dialed: dict[str, _Dialed] = attrs.field(factory=dict[str, _Dialed], init=False)

    @property
    def links(self) -> int:
        """How many there are."""
        return sum(dialed.settled.is_set() for dialed in self._dialed.values())

    async def reach(self, address: str) -> Exit:
        """Return the link to the server at *address* (HOST:PORT, or `UNIX` and a path); joins have to be made at once.

        Raises:
          PeerAwayError: there is none.

        """
        dialed = self._dialed.get(address)
        if dialed is None:
            # An agent begins no session, and so does nothing that is behind this.
            dialed = self._dialed[address] = _Dialed(Exit(self.switch, "", agent=""))
            self.nursery.start_soon(self._run, address, dialed)
        await dialed.settled.wait()
        if dialed.failure:
            raise PeerAwayError(dialed.failure)
        if self._dialed.get(address) is not dialed:
            raise PeerAwayError(LOST)
        return dialed.port

    async def _run(self, address: str, dialed: _Dialed) -> None:
        reason = ""
        with trio.CancelScope(deadline=trio.current_time() + CONNECT) as scope:
            try:
                await self._carry(address, dialed, scope)
            except (WebSocketError, LinkLostError) as exc:
                reason = str(exc)
        if scope.cancelled_caught:
            reason = "" if dialed.settled.is_set() else f"no answer in {CONNECT:g} s"
        if self._dialed.get(address) is dialed:
            del self._dialed[address]
        if not dialed.settled.is_set():
            dialed.failure = f"the relay's server at {address} cannot be reached: {reason}"
            dialed.settled.set()
        self.notify(PeerLost(address, reason or "it was not needed any more"))

    async def _carry(self, address: str, dialed: _Dialed, scope: trio.CancelScope) -> None:
        async with _dial(address, self.context) as websocket:
            scope.deadline = math.inf
            link = dialed.port.link = Link(websocket, dialed.port.heed, self.settings)
            dialed.settled.set()
            self.notify(PeerLinked(address))
            try:
                async with open_background() as nursery:
                    nursery.start_soon(self._watch, address, dialed, scope)
                    await link.run()
            finally:
                if self._dialed.get(address) is dialed:
                    del self._dialed[address]
                dialed.port.lose(LOST)

    async def _watch(self, address: str, dialed: _Dialed, scope: trio.CancelScope) -> None:
        while True:
            await trio.sleep(IDLE)
            if not dialed.port.sessions:
                del self._dialed[address]
                scope.cancel()


@asynccontextmanager
async def _dial(address: str, context: ssl.SSLContext | None) -> AsyncGenerator[WebSocket]:
    if not address.startswith(UNIX):
        url = f"{'ws' if context is None else 'wss'}://{address}{PATH}"
        async with open_websocket(url, ssl_context=context, subprotocol=SUBPROTOCOL) as websocket:
            yield websocket
        return
    if context is not None:
        # The store says where servers are; it is not to lead around certificates.
        raise WebSocketError("it proves nothing, and is to be on the machine that it runs on")
    try:
        stream = await trio.open_unix_socket(address.removeprefix(UNIX))
    except OSError as exc:
        raise WebSocketError((exc.strerror or str(exc)).lower()) from exc
    try:
        async with request_websocket(stream, "localhost", PATH, subprotocol=SUBPROTOCOL) as websocket:
            yield websocket
    finally:
        await trio.aclose_forcefully(stream)


async def serve_peer(
    stream: trio.SocketStream,
    switch: Switch,
    context: ssl.SSLContext | None,
    notify: Callable[[PeerEvent], None],
    settings: LinkSettings = PEER_LINK,
) -> None:
    """Carry the sessions that another server leads here over *stream*, until that ends."""
    name, reason = "?", ""
    try:
        # One that dials a Unix socket has no address.
        name = str((stream.socket.getpeername() or (NEIGHBOUR,))[0])
        with trio.CancelScope(deadline=trio.current_time() + CONNECT) as scope:
            secured: trio.abc.Stream = stream
            if context is not None:
                secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
                await secured.do_handshake()
                name = _subject(secured) or name
            async with accept_websocket(secured, subprotocol=SUBPROTOCOL) as websocket:
                scope.deadline = math.inf
                notify(PeerLinked(name))
                port = Entrance(switch, "")
                port.link = link = Link(websocket, port.heed, settings)
                try:
                    await link.run()
                finally:
                    port.lose(LOST)
        reason = f"it has not said in {CONNECT:g} s what it wants"
    except (WebSocketError, LinkLostError) as exc:
        reason = str(exc)
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        reason = _why(exc)
    notify(PeerLost(name, reason))


def _subject(stream: trio.SSLStream[trio.SocketStream]) -> str:
    """Return the name in the other end's certificate."""
    certificate = cast("Mapping[str, object] | None", stream.getpeercert()) or {}
    for relative in cast("tuple[tuple[tuple[str, str], ...], ...]", certificate.get("subject", ())):
        for key, value in relative:
            if key == "commonName":
                return value
    return ""


def _why(exc: Exception) -> str:
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLError):
        return f"no TLS: {(cause.reason or 'it hung up').replace('_', ' ').lower()}"
    return str(exc) or "it hung up"

"""The relay's links: each carries a user's frames for as long as the user's token holds."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection

import attrs
import trio

from tunnel_relay.errors import LinkLostError, RelayProtocolError, WebSocketClosedError
from tunnel_relay.link import PROTOCOL_ERROR, Link, LinkSettings
from tunnel_relay.policy.access import Access, Feature
from tunnel_relay.policy.rate import Act, RateLimits
from tunnel_relay.protocol.frames import LINK, Frame, FrameType
from tunnel_relay.protocol.greetings import GoAway, write
from tunnel_relay.protocol.tokens import Claims, TokenError, Verifier, check_claims
from tunnel_relay.protocol.upgrade import SUBPROTOCOL, UNAUTHORIZED
from tunnel_relay.server.admission import AdmissionError, Asking, check_scope
from tunnel_relay.server.census import GRACE, Census
from tunnel_relay.server.events import (
    CAUSES,
    Cause,
    Ending,
    LinkClosed,
    LinkOpened,
    Origin,
    RateExceeded,
    RelayEvent,
    TokenRefreshed,
)
from tunnel_relay.server.policing import Policing
from tunnel_relay.server.switch import Port, Switch
from tunnel_relay.websocket import WebSocket, accept_websocket

# Seconds between two looks at whether tokens still hold.
LOOK = 5.0

# Codes of RFC 6455, section 7.4.1: that we go, that somebody does, and what is wrong with what the other end sends.
GOING_AWAY = 1001
PARTINGS = frozenset({1000, GOING_AWAY})
BREACHES = frozenset({1002, 1003, 1007, 1009})

LEAVING = "the relay is being shut down"
FOLLOWED = "the agent has another link, or its user has too many agents"


@attrs.frozen(kw_only=True)
class ServiceFigures:
    """How many clients, agents, sessions and streams there are; how many *frames* of so many *bytes* wait."""

    clients: int = 0
    agents: int = 0
    sessions: int = 0
    streams: int = 0
    frames: int = 0
    bytes: int = 0


@attrs.define(eq=False)
class RelayService:
    """Links that have been let in, joined by a switch.

    Attributes:
      verifier: Verifies tokens.
      unix_time: The time of day.
      notify: Called with what happens.
      settings: How to notice that a link is dead.
      revoked: The tokens that do not count any more.
      access: What users may do.
      rates: How often they may ask for something.
      stay: Keeps an agent known to other servers until cancelled; returns where it is not to have this link.
      grace: Seconds that a session which is without a connection is counted for.

    """

    verifier: Verifier
    unix_time: Callable[[], float]
    notify: Callable[[RelayEvent], None]
    settings: LinkSettings = attrs.field(factory=LinkSettings)
    revoked: Collection[str] = ()
    switch: Switch = attrs.field(factory=Switch)
    access: Access = attrs.field(factory=Access)
    rates: RateLimits = attrs.field(
        default=attrs.Factory(
            lambda self: RateLimits(self.access.rates(), self.access.tier("").rates), takes_self=True
        )
    )
    stay: Callable[[Port], Awaitable[None]] | None = None
    grace: float = GRACE
    census: Census = attrs.field(
        default=attrs.Factory(lambda self: Census(self.access, self.grace), takes_self=True), init=False
    )
    _links: dict[_Admitted, None] = attrs.field(factory=dict["_Admitted", None], init=False)
    _left: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.switch.pools = lambda tier: self.access.tier(tier).refuse_feature(Feature.AGENT_POOLS) is None

    def trust(self, verifier: Verifier) -> None:
        """Believe *verifier* from now on; links whose tokens it does not believe end."""
        self.verifier = verifier
        for link in self._links:
            link.verify()

    def figures(self) -> ServiceFigures:
        """Return how much there is to do."""
        clients = [link.port for link in self._links if link.asking.agent is None]
        waiting = [port.waiting() for port in clients]
        return ServiceFigures(
            clients=len(clients),
            agents=len(self._links) - len(clients),
            sessions=sum(port.sessions for port in clients),
            streams=self.census.streams,
            frames=sum(frames for frames, _ in waiting),
            bytes=sum(size for _, size in waiting),
        )

    def admit(self, asking: Asking) -> Claims:
        """Return whose *asking* it is.

        Raises:
          TokenError: nobody knows.
          AdmissionError: the user may not.

        """
        claims = self.verifier.verify(asking.token, self.unix_time(), self.revoked)
        check_scope(asking, claims)
        return claims

    async def serve(
        self, stream: trio.abc.Stream, initial: bytes, asking: Asking, claims: Claims, origin: Origin
    ) -> None:
        """Carry the frames of a link that was admitted, whose upgrade request is *initial*, until it ends.

        Raises:
          WebSocketError: the upgrade did not come about.

        """
        async with accept_websocket(stream, initial=initial, subprotocol=SUBPROTOCOL) as websocket:
            await _Admitted(self, websocket, asking, claims, origin).run()

    def joined(self, link: _Admitted) -> None:
        """Note that there is a link more."""
        self._links[link] = None

    def left(self, link: _Admitted) -> None:
        """Note that there is one less."""
        del self._links[link]
        self._left.set()

    async def drain(self, limit: float) -> None:
        """Ask all links to go elsewhere, and return when they have; those that have not in time are closed.

        An agent may stay for as long as the relay itself has streams there: nobody else is led to it any more.
        """
        for link in self._links:
            link.leave()
        with trio.move_on_after(limit):
            while self._links:
                self._left = trio.Event()
                await self._left.wait()
        async with trio.open_nursery() as nursery:
            for link in self._links:
                nursery.start_soon(link.websocket.aclose, GOING_AWAY, LEAVING)


@attrs.define(eq=False)
class _Admitted:
    service: RelayService
    websocket: WebSocket
    asking: Asking
    claims: Claims
    origin: Origin
    port: Port = attrs.field(init=False)
    _link: Link = attrs.field(init=False)
    _fault: TokenError | AdmissionError | None = None
    _changed: trio.Event = attrs.field(factory=trio.Event)
    # The latest token for which it was too early, and when it is not.
    _postponed: str | None = None
    _refresh_at: float = -math.inf
    _staying: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        service, asking, user, origin = self.service, self.asking, self.claims.user, self.origin
        port = self.port = Port(service.switch, user, asking.agent, asking.instance, self.claims.tier)
        link = port.link = self._link = Link(
            self.websocket, lambda frame: self._heed(port, frame), service.settings
        )
        ending, detail, began = Ending.LEFT, "", trio.current_time()
        policing: Policing | None = None
        if asking.agent is None:
            policing = port.watch = Policing(
                origin=origin,
                user=user,
                tier=lambda: self.claims.tier,
                holds=self._holds,
                link=link,
                part=port.part,
                census=service.census,
                rates=service.rates,
                notify=service.notify,
            )
        service.notify(LinkOpened(origin=origin, user=user, agent=asking.agent, tier=self.claims.tier))
        service.joined(self)
        if asking.agent is not None:
            service.switch.register(port)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_token)
                if asking.agent is not None and service.stay is not None:
                    nursery.start_soon(self._stay, service.stay)
                try:
                    await link.run()
                except LinkLostError as exc:
                    ending, detail = _ending(exc.__cause__), str(exc)
                nursery.cancel_scope.cancel()
        finally:
            if asking.agent is not None:
                service.switch.unregister(port)
            who = "client" if asking.agent is None else f"agent {asking.agent!r}"
            port.lose(f"the {who}'s connection is lost")
            if policing is not None:
                policing.end()
            service.left(self)
            service.notify(
                LinkClosed(
                    origin=origin,
                    user=user,
                    agent=asking.agent,
                    ending=Ending.TOKEN if self._fault else ending,
                    detail=str(self._fault or detail),
                    duration=trio.current_time() - began,
                    cause=self._cause(),
                )
            )

    async def _stay(self, stay: Callable[[Port], Awaitable[None]]) -> None:
        with self._staying:
            await stay(self.port)
            await self.websocket.aclose(GOING_AWAY, FOLLOWED)

    def leave(self) -> None:
        """Tell the other end that this relay is of no use any more."""
        if self.asking.agent is not None:
            self.service.switch.unregister(self.port)
            self._staying.cancel()
            self.port.retire(LEAVING)
        self._link.send(Frame(FrameType.GOAWAY, payload=write(GoAway(lost=False, detail=LEAVING))))

    def verify(self) -> None:
        """Look anew whether the token is to be believed; where it is not, the link ends."""
        try:
            self.service.admit(self.asking)
        except (TokenError, AdmissionError) as exc:
            self._fault = exc
            self._changed.set()

    def _cause(self) -> Cause | None:
        if self._fault is None:
            return None
        return CAUSES[self._fault.fault] if isinstance(self._fault, TokenError) else Cause.SCOPE

    def _heed(self, port: Port, frame: Frame) -> None:
        if frame.session == LINK and frame.type is FrameType.REFRESH:
            self._refresh(bytes(frame.payload).decode("latin-1"))
        else:
            port.heed(frame)

    def _refresh(self, token: str) -> None:
        """Go by *token* from now on; where they come too often, by the last of them, when there may be one again."""
        self._postponed = None
        if token == self.asking.token:
            return
        now = trio.current_time()
        if now < self._refresh_at:
            self._postponed = token
            return
        wait = self.service.rates.upgrade(self.claims.user, self.claims.tier, now)
        if wait:
            self._postponed, self._refresh_at = token, now + wait
            self._changed.set()
            self.service.notify(
                RateExceeded(
                    origin=self.origin, user=self.claims.user, act=Act.UPGRADE, wait=wait, refused=False
                )
            )
            return
        asking = attrs.evolve(self.asking, token=token)
        try:
            claims = self.service.admit(asking)
        except (TokenError, AdmissionError) as exc:
            self._fault = exc
            self._changed.set()
            return
        if claims.user != self.claims.user:
            raise RelayProtocolError("a token was refreshed by somebody else's")
        self.asking, self.claims = asking, claims
        self.port.tier = claims.tier
        self._changed.set()
        self.service.notify(TokenRefreshed(origin=self.origin, user=claims.user))

    def _holds(self) -> bool:
        """Return whether the token still holds; where it does not, the link ends."""
        try:
            check_claims(self.claims, self.service.unix_time(), self.service.revoked)
        except TokenError as exc:
            self._fault = exc
            self._changed.set()
        return self._fault is None

    async def _watch_token(self) -> None:
        """Close the link when its token holds no more."""
        while self._fault is None:
            self._changed = trio.Event()
            if self._postponed is not None and trio.current_time() >= self._refresh_at:
                try:
                    self._refresh(self._postponed)
                except RelayProtocolError as exc:
                    await self.websocket.aclose(PROTOCOL_ERROR, str(exc))
                    return
            if not self._holds():
                break
            left = self.claims.expires - self.service.unix_time()
            wait = min(max(left, 0.0) + 1, LOOK)
            if self._postponed is not None:
                wait = min(wait, self._refresh_at - trio.current_time())
            with trio.move_on_after(max(wait, 0.0)):
                await self._changed.wait()
        await self.websocket.aclose(UNAUTHORIZED, str(self._fault))


def _ending(cause: BaseException | None) -> Ending:
    """Return what it means that a link was lost for this *cause*."""
    if isinstance(cause, WebSocketClosedError):
        if cause.code in PARTINGS:
            return Ending.LEFT
        return Ending.BROKEN if cause.code in BREACHES else Ending.LOST
    return Ending.BROKEN if isinstance(cause, RelayProtocolError) else Ending.LOST

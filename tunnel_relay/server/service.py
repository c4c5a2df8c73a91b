"""The relay's links: each carries a user's frames for as long as the user's token holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import attrs
import trio

from tunnel_relay.errors import LinkLostError, RelayProtocolError
from tunnel_relay.link import Link, LinkSettings
from tunnel_relay.policy.access import Access
from tunnel_relay.policy.rate import RateLimits
from tunnel_relay.protocol.frames import LINK, Frame, FrameType
from tunnel_relay.protocol.tokens import Claims, TokenError, Verifier
from tunnel_relay.protocol.upgrade import SUBPROTOCOL, UNAUTHORIZED
from tunnel_relay.server.admission import AdmissionError, Asking, check_scope
from tunnel_relay.server.events import CAUSES, Cause, LinkClosed, LinkOpened, Origin, RelayEvent, TokenRefreshed
from tunnel_relay.server.switch import Port, Switch
from tunnel_relay.websocket import WebSocket, accept_websocket

# Seconds between two looks at whether tokens still hold.
LOOK = 5.0


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

    """

    verifier: Verifier
    unix_time: Callable[[], float]
    notify: Callable[[RelayEvent], None]
    settings: LinkSettings = attrs.field(factory=LinkSettings)
    revoked: Collection[str] = ()
    switch: Switch = attrs.field(factory=Switch)
    access: Access = attrs.field(factory=Access)
    rates: RateLimits = attrs.field(
        default=attrs.Factory(lambda self: RateLimits(self.access.rates()), takes_self=True)
    )
    _links: dict[_Admitted, None] = attrs.field(factory=dict["_Admitted", None], init=False)
    _left: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def links(self) -> int:
        """How many there are."""
        return len(self._links)

    def admit(self, asking: Asking) -> Claims:
        """Return whose *asking* it is.

        Raises:
          TokenError: nobody knows.
          AdmissionError: the user may not.

        """
        claims = self.verifier.verify(asking.token, self.unix_time(), self.revoked)
        check_scope(asking, claims)
        return claims

    async def serve(self, stream: trio.abc.Stream, initial: bytes, asking: Asking, claims: Claims) -> None:
        """Carry the frames of a link that was admitted, whose upgrade request is *initial*, until it ends.

        Raises:
          WebSocketError: the upgrade did not come about.

        """
        async with accept_websocket(stream, initial=initial, subprotocol=SUBPROTOCOL) as websocket:
            await _Admitted(self, websocket, asking, claims).run()


@attrs.define(eq=False)
class _Admitted:
    service: RelayService
    websocket: WebSocket
    asking: Asking
    claims: Claims
    _fault: TokenError | AdmissionError | None = None
    _changed: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        service, asking, user = self.service, self.asking, self.claims.user
        port = Port(service.switch, user, asking.agent, asking.instance)
        link = port.link = Link(self.websocket, lambda frame: self._heed(port, frame), service.settings)
        detail = ""
        service.notify(LinkOpened(user, asking.agent))
        if asking.agent is not None:
            service.switch.register(port)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_token)
                try:
                    await link.run()
                except LinkLostError as exc:
                    detail = str(exc)
                nursery.cancel_scope.cancel()
        finally:
            if asking.agent is not None:
                service.switch.unregister(port)
            who = "client" if asking.agent is None else f"agent {asking.agent!r}"
            port.lose(f"the {who}'s connection is lost")
            service.notify(LinkClosed(user, asking.agent, str(self._fault or detail)))

    def _heed(self, port: Port, frame: Frame) -> None:
        if frame.session == LINK and frame.type is FrameType.REFRESH:
            self._refresh(bytes(frame.payload))
        else:
            port.heed(frame)

    def _refresh(self, payload: bytes) -> None:
        asking = attrs.evolve(self.asking, token=payload.decode("latin-1"))
        try:
            claims = self.service.admit(asking)
        except (TokenError, AdmissionError) as exc:
            self._fault = exc
            self._changed.set()
            return
        if claims.user != self.claims.user:
            raise RelayProtocolError("a token was refreshed by somebody else's")
        self.asking, self.claims = asking, claims
        self._changed.set()

    async def _watch_token(self) -> None:
        """Close the link when its token holds no more."""
        while self._fault is None:
            self._changed = trio.Event()
            try:
                self.service.admit(self.asking)
            except (TokenError, AdmissionError) as exc:
                self._fault = exc
                break
            left = self.claims.expires - self.service.unix_time()
            with trio.move_on_after(min(max(left, 0.0) + 1, LOOK) if left < math.inf else LOOK):
                await self._changed.wait()
        await self.websocket.aclose(UNAUTHORIZED, str(self._fault))

"""Keeps one end linked to its relay: by the best server that works, with a token that holds.

`Dialing.run` is the whole life: it dials what the `Selector` says, hands each link to the `End`, sees to the token
before it expires, and goes back to a better server when that is well again. A link that takes another's place is up
before the other one ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import trio

from tunnel_relay.background import open_background
from tunnel_relay.category import Category, category_of
from tunnel_relay.dial_events import (
    DialEvent,
    DialFailed,
    Linked,
    LinkLost,
)
from tunnel_relay.dial_settings import DialSettings, TokenSource, connect_url
from tunnel_relay.dialing_end import End, Remains
from tunnel_relay.errors import (
    LinkLostError,
    TokenUnavailableError,
    WebSocketClosedError,
    WebSocketError,
    WebSocketRejectedError,
)
from tunnel_relay.health_check import is_healthy
from tunnel_relay.link import Link
from tunnel_relay.policy.selector import Endpoint, FailoverState, Rest, Selector
from tunnel_relay.protocol.frames import LINK, Frame, FrameType
from tunnel_relay.protocol.greetings import read_go_away
from tunnel_relay.protocol.upgrade import SUBPROTOCOL, UNAUTHORIZED
from tunnel_relay.token_refreshing import TokenRefreshing
from tunnel_relay.websocket import open_websocket

# A server that says goodbye sooner than this, in seconds, is none to come back to at once.
POLITE = 1.0

# Seconds after which to look again whether streams have ended that would not outlive a change of servers.
STAY = 5.0

HTTP_UNAUTHORIZED = 401

# Answers that only a person or another token can change.
SLOW = (400, HTTP_UNAUTHORIZED, 403, 404, 426)


@attrs.define(eq=False)
class _Held:
    """A link that is up."""

    endpoint: Endpoint
    link: Link
    scope: trio.CancelScope
    why: str = ""
    """Why we end it ourselves."""
    asked: trio.Event = attrs.field(factory=trio.Event)
    """Set when the server asks us to go elsewhere."""
    remains: Remains | None = None


@attrs.define(eq=False)
class Dialing:
    """See the module.

    Attributes:
      end: What uses the links.
      settings: How to get to the relay.
      token: Where tokens come from.
      rng: Returns numbers from 0 to below 1, all equally likely.
      unix_time: The time of day.
      notify: Called with what happens.
      reason: Why there is no link; empty where there is one.
      since: When that changed last, by the clock of Trio.
      reconnections: How many links there were after the first.
      category: What kind of trouble `reason` is.

    """

    end: End
    settings: DialSettings
    token: TokenSource
    rng: Callable[[], float] = attrs.field(repr=False)
    unix_time: Callable[[], float] = attrs.field(repr=False)
    notify: Callable[[DialEvent], None] = attrs.field(repr=False)
    reason: str = attrs.field(default="connecting", init=False)
    since: float = attrs.field(factory=trio.current_time, init=False)
    reconnections: int = attrs.field(default=-1, init=False)
    category: Category = attrs.field(default=Category.NETWORK, init=False)
    _selector: Selector = attrs.field(init=False)
    _held: _Held | None = attrs.field(default=None, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _refreshing: TokenRefreshing = attrs.field(init=False)
    _left: int = attrs.field(default=0, init=False)
    """How many links were left over which something goes on."""
    _begun_anew: int = attrs.field(default=0, init=False)
    """How often what is known for dialing has become another: an attempt from before that says nothing."""
    _failures: int = attrs.field(default=0, init=False)
    """Since the last link."""
    _refused: bool = attrs.field(default=False, init=False)
    """Whether the relay did not accept the last token."""
    _attempt: trio.CancelScope | None = attrs.field(default=None, init=False)
    """Ends the attempt to get a link that is under way."""

    def __attrs_post_init__(self) -> None:
        self._selector = Selector(self.settings.endpoints, self.rng, self.settings.selector)
        self._refreshing = TokenRefreshing(self.token, self.unix_time, self.notify)

    @property
    def linked(self) -> bool:
        """Whether there is a link."""
        return self._held is not None

    @property
    def lingers(self) -> bool:
        """Whether something goes on over a link that was left."""
        return self._left > 0

    @property
    def link(self) -> Link | None:
        """The link that is in use."""
        return None if self._held is None else self._held.link

    @property
    def round_trip(self) -> float | None:
        """Seconds to the relay and back; None where there is no link, or it is not known yet."""
        return None if self._held is None else self._held.link.round_trip

    @property
    def failing(self) -> bool:
        """Whether there is no link, and every server has been tried in vain since the last one."""
        return self._held is None and self._failures >= len(self.settings.endpoints)

    @property
    def state(self) -> FailoverState:
        """Which server is used, and why not a better one."""
        return self._selector.state()

    @property
    def changed(self) -> trio.Event:
        """What is set when `linked`, `lingers`, `reason` or `state` may have changed; then there is another one."""
        return self._changed

    def demand(self) -> None:
        """Somebody wants a link now: do not rest for longer than it takes servers to bear it."""
        if self._held is None:
            self._selector.demand(trio.current_time())
            self._change()

    def dial_anew(self, why: str) -> None:
        """Leave the link that there is, for the reason *why*, and dial again with what is known now."""
        held = self._held
        if held is not None:
            held.why = why
            held.scope.cancel()
        else:
            self._begun_anew += 1
            if self._attempt is not None:
                self._attempt.cancel()
            self._selector.begin_anew()
            self._change()

    async def wait_sent(self) -> None:
        """Wait until all that there is to send now has been given to the network, where there is a link."""
        if self._held is not None:
            await self._held.link.wait_sent()

    async def run(self) -> None:
        """Keep the end linked, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                if self._held is not None:
                    await self._stay(nursery)
                    continue
                if self.end.wanted:
                    self._selector.demand(trio.current_time())
                step = self._selector.next_step(trio.current_time())
                if isinstance(step, Rest):
                    with trio.move_on_at(step.until):
                        await self._changed.wait()
                else:
                    await nursery.start(self._carry, step.endpoint)

    async def _stay(self, nursery: trio.Nursery) -> None:
        """Look after better servers, until the next change."""
        now = trio.current_time()
        for endpoint in self._selector.to_probe(now):
            nursery.start_soon(self._probe, endpoint)
        timer, better = self._selector.next_timer(now), self._selector.better(now)
        if better is not None:
            if not self.end.stays:
                await nursery.start(self._carry, better)
                return
            # It can wait for them.
            timer = now + STAY
        with trio.move_on_at(math.inf if timer is None else timer):
            await self._changed.wait()

    async def _probe(self, endpoint: Endpoint) -> None:
        healthy = await is_healthy(endpoint.url, self.settings.ssl_context, self.settings.proxy(endpoint.url))
        self._selector.probed(endpoint, trio.current_time(), healthy=healthy)
        self._change()

    async def _carry(self, endpoint: Endpoint, *, task_status: trio.TaskStatus[None]) -> None:
        """Link to *endpoint* until that link is lost; has started when it is up, or could not be had."""
        began, begun_anew = trio.current_time(), self._begun_anew
        held: _Held | None = None

        def linked(new: _Held) -> None:
            nonlocal held
            self._attempt = None
            if self._held is not None and self.end.stays:
                # Streams have begun meanwhile that would end.
                scope.cancel()
                return
            scope.deadline = math.inf
            held = new
            self._take(held, trio.current_time() - began)
            task_status.started()

        failure: Exception = LinkLostError(f"no answer within {self.settings.connect:g} s")
        with trio.CancelScope() as scope:
            self._attempt = scope
            try:
                # A person may be asked for it, and has more time.
                # Whoever reads it from a file has the line's end, too.
                token = (await self.token(anew=self._refused)).strip()
                began = trio.current_time()
                scope.deadline = began + self.settings.connect
                await self._link(endpoint, token, scope, linked)
            except (WebSocketError, LinkLostError, TokenUnavailableError) as exc:
                failure = exc
        if held is not None:
            self._ended(held, failure)
            return
        self._attempt = None
        now = trio.current_time()
        if not (scope.cancelled_caught and now < scope.deadline):
            self._failed(endpoint, failure)
        elif self._held is None:
            # We have given it up: what was used until now may answer sooner.
            self._selector.failed(endpoint, "it had not answered when the other link was lost", now)
        if self._begun_anew != begun_anew:
            self._selector.begin_anew()
        task_status.started()

    async def _link(
        self, endpoint: Endpoint, token: str, scope: trio.CancelScope, linked: Callable[[_Held], None]
    ) -> None:
        """Dial *endpoint* with *token*, tell of the link, and carry its frames.

        Raises:
          WebSocketError: there is no link.
          LinkLostError: there is none any more.

        """
        settings = self.settings
        async with open_websocket(
            connect_url(endpoint.url, settings.query),
            ssl_context=settings.ssl_context,
            proxy=settings.proxy(endpoint.url),
            headers=[("Authorization", f"Bearer {token}")],
            subprotocol=SUBPROTOCOL,
        ) as websocket:
            link = Link(websocket, lambda frame: self._heed(held, frame), settings.link)
            held = _Held(endpoint, link, scope)
            linked(held)
            async with open_background() as nursery:
                nursery.start_soon(self._refreshing.run, link, token)
                nursery.start_soon(self._leave_when_asked, held)
                await link.run()

    def _heed(self, held: _Held, frame: Frame) -> None:
        if frame.session == LINK and frame.type is FrameType.GOAWAY:
            held.why = held.why or read_go_away(frame.payload).detail
            held.asked.set()
        elif held.remains is not None:
            held.remains.heed(frame)
        elif self._held is held:
            self.end.heed(frame)

    async def _leave_when_asked(self, held: _Held) -> None:
        """End a link when its server asks for that: another one, or the same one when it is back, takes over."""
        await held.asked.wait()
        await self.end.wait_free()
        if self._held is held:
            held.remains = self.end.leave()
        if held.remains is not None:
            self._left += 1
            self._release(held, LinkLostError(held.why))
            try:
                await held.remains.wait_over()
            finally:
                held.remains.detach()
                self._left -= 1
                self._change()
        held.scope.cancel()

    def _take(self, held: _Held, setup: float) -> None:
        """Use a link that came up."""
        before, self._held = self._held, held
        self._selector.connected(held.endpoint, trio.current_time())
        self._refused = False
        self._refreshing.works()
        self._failures = 0
        self.reconnections += 1
        self._set("")
        if before is not None:
            before.why = "a better server is well again"
            before.scope.cancel()
        self.end.attach(held.link)
        held.link.ping()
        self.notify(Linked(held.endpoint.url, setup))

    def _ended(self, held: _Held, failure: Exception) -> None:
        """Note that a link is lost."""
        if self._held is not held:
            # Another one has its place.
            return
        self.end.detach()
        self._release(held, failure)

    def _release(self, held: _Held, failure: Exception) -> None:
        """Note that there is no link that is used."""
        self._held = None
        if self._attempt is not None:
            # It was to go back: while it is waited for, nothing is dialled that may answer sooner.
            self._attempt.cancel()
        reason, category = held.why or str(failure), Category.SERVER if held.why else category_of(failure)
        cause = failure.__cause__
        if isinstance(cause, WebSocketClosedError) and cause.code == UNAUTHORIZED:
            self._refused = True
        now = trio.current_time()
        if held.why and now - self.since >= POLITE:
            # It is no bad news of a server that it says goodbye.
            self._selector.left(held.endpoint, now)
        else:
            self._selector.lost(held.endpoint, reason, now)
        self.category = category
        self._set(reason)
        self.notify(LinkLost(held.endpoint.url, reason, category))

    def _failed(self, endpoint: Endpoint, failure: Exception) -> None:
        rejected = failure if isinstance(failure, WebSocketRejectedError) else None
        refused_before = self._refused
        if not isinstance(failure, TokenUnavailableError):
            self._refused = bool(rejected and rejected.status == HTTP_UNAUTHORIZED)
        # The first time that a token is refused, a newer one may be had at once.
        category = category_of(failure)
        slow = (
            isinstance(failure, TokenUnavailableError)
            or (rejected is None and category is Category.CONFIGURATION)
            or bool(rejected and rejected.status in SLOW and (refused_before or not self._refused))
        )
        rest = self._selector.failed(
            endpoint,
            str(failure),
            trio.current_time(),
            slow=slow,
            retry_after=rejected.retry_after if rejected else 0.0,
        )
        if slow and category is Category.AUTHENTICATION:
            self._refreshing.ask_a_person(str(failure))
        if self._held is None:
            self._failures += 1
            self.category = category
            self._set(self._selector.state().reason)
        self.notify(DialFailed(endpoint.url, str(failure), category, rest))

    def _set(self, reason: str) -> None:
        self.reason, self.since = reason, trio.current_time()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

"""A client's tunnel to an agent, as a library: streams to its services, and requests that are not lost on the way.

    async with open_tunnel_service(settings, token) as tunnel:
        await tunnel.connect()
        stream = await tunnel.open_stream("ssh")
        response = await tunnel.forward_request("printer", b"...", priority=Priority.HIGH)

Streams and requests outlive the loss of the connection. Requests wait while there is none; those of high priority
also outlive the program, where `TunnelSettings` names a file for them.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from tunnel_relay.background import open_background
from tunnel_relay.category import Category
from tunnel_relay.client.figures import Figures, TunnelMetrics
from tunnel_relay.client.forwarding import Forwarding, ForwardingEvent, open_forwarding
from tunnel_relay.client.outbox_store import open_outbox_store
from tunnel_relay.client.reaching import Reaching
from tunnel_relay.dial_events import DialEvent, DialFailed, LinkLost
from tunnel_relay.dial_settings import DialSettings, TokenSource
from tunnel_relay.dialing import Dialing
from tunnel_relay.errors import RequestLostError, TunnelUnavailableError
from tunnel_relay.policy.outbox import OutboxSettings, Priority
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.protocol.requests import DEFAULT_MOST, DEFAULT_TIME, Request, Response
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.relay_stream import RelayStream

if TYPE_CHECKING:
    from tunnel_relay.stages import Stage

# Seconds for saying goodbye.
PARTING = 1.0

# Trouble that goes away only where a person does something.
FOR_PEOPLE = (Category.AUTHENTICATION, Category.CONFIGURATION)

TunnelEvent = DialEvent | ForwardingEvent


@attrs.frozen(kw_only=True)
class TunnelSettings:
    """Where a tunnel leads, and how.

    Attributes:
      dial: How to get to the relay.
      agent: Which of the user's agents; "" where there is but one.
      mode: Who speaks SSH with the agent's side. Where the relay does, streams and requests go to a HOST:PORT behind
        the agent; else to a service of the agent.
      session: Bounds of the session.
      outbox: How many requests may wait.
      file: Where requests of high priority are kept; without it they end with the program, as all others do.

    """

    dial: DialSettings
    agent: str = ""
    mode: Mode = Mode.END_TO_END
    session: SessionSettings = attrs.field(factory=SessionSettings)
    outbox: OutboxSettings = attrs.field(factory=OutboxSettings)
    file: Path | None = None


@attrs.frozen(kw_only=True)
class TunnelState:
    """How a tunnel is.

    Attributes:
      connected: Whether there is a way to the agent now.
      relay: The URL of the relay server in use; "" where there is none.
      reason: Why there is no way; "" where there is one.
      category: What kind of trouble that is; None where there is a way.

    """

    connected: bool
    relay: str
    reason: str
    category: Category | None


@attrs.define(eq=False)
class TunnelService:
    """See the module; `open_tunnel_service` makes one."""

    settings: TunnelSettings
    _token: TokenSource = attrs.field(repr=False)
    _nursery: trio.Nursery
    _reaching: Reaching
    _forwarding: Forwarding
    _notify: Callable[[TunnelEvent], None]
    _figures: Figures = attrs.field(factory=Figures, init=False)
    _dialing: Dialing | None = attrs.field(default=None, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _over: trio.Event = attrs.field(factory=trio.Event, init=False)
    _reconnections: int = attrs.field(default=0, init=False)
    """Those of earlier connections."""

    async def connect(self, *, patient: bool = False) -> None:
        """Connect, and return when there is a way to the agent; it is mended from then on whenever it breaks.

        Where *patient*, trouble that passes is waited for. What was begun goes on where this fails or is cancelled.

        Raises:
          TunnelUnavailableError: there is no way, or where *patient* none before a person does something.

        """
        asked: Dialing | None = None
        while True:
            # Somebody may disconnect meanwhile.
            dialing = self._dial()
            if dialing is not asked:
                asked = dialing
                dialing.demand()
            self._reaching.begin()
            if self._reaching.attached:
                return
            if dialing.failing and (not patient or dialing.category in FOR_PEOPLE):
                raise TunnelUnavailableError(dialing.reason, dialing.category)
            if self._reaching.why_not is not None and not patient:
                raise TunnelUnavailableError(self._reaching.why_not, Category.SERVER)
            await _first_of(self._reaching.changed, dialing.changed)

    async def disconnect(self) -> None:
        """Disconnect, once what was sent is with the network; streams end, and requests wait for `connect`."""
        dialing = self._dialing
        if dialing is None:
            return
        await self._wait_sent(dialing)
        self._reaching.part("the client has disconnected")
        await self._wait_sent(dialing)
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            # It has nothing left to wait for.
            await self._over.wait()

    async def open_stream(self, service: str) -> RelayStream:
        """Return a stream to *service*: one of the agent, or HOST:PORT behind it where the relay speaks SSH.

        Raises:
          StreamRefusedError: the agent, or the relay, would not.
          StreamResetError: there was no way to the agent for too long.

        """
        stream = self._reaching.open_stream(service)
        try:
            await stream.wait_accepted()
        except BaseException:
            # Nobody waits for the answer any more.
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def forward_request(
        self,
        target: str,
        payload: bytes,
        *,
        priority: Priority = Priority.NORMAL,
        identity: str | None = None,
        most: int = DEFAULT_MOST,
        seconds: float = DEFAULT_TIME,
        accepted: Callable[[], None] | None = None,
        sent: Callable[[bool], None] | None = None,
    ) -> Response:
        """Send *payload* to *target*, and the end; return all that it says until its end, or why it was not done.

        What is lost on the way is asked for again, and still done once: that is what *identity* is for, which is made
        up where it is None. *seconds* are the target's; how long the way takes is up to the caller's time limit. Where
        this is cancelled, a request of high priority is made all the same, now or after the next start, from when
        *accepted* was called; *sent* is called with whether it has been sent, and may have been done.

        Raises:
          OutboxFullError: too many wait; this one was not accepted.
          StoreError: it could not be written to the disk, and was not accepted.
          RequestLostError: it was sent, never answered, and must not be sent again; it may have been done.
          ValueError: there can be no such request.

        """
        name = identity if identity is not None else secrets.token_hex(16)
        request = Request(id=name, target=target, payload=payload, most=most, time=seconds)
        began = trio.current_time()
        try:
            response = await self._forwarding.forward(request, priority, accepted=accepted, sent=sent)
        except RequestLostError:
            self._figures.lost(Category.NETWORK)
            raise
        self._figures.answered(response.status, trio.current_time() - began)
        return response

    async def flush(self) -> None:
        """Wait until no request waits for its response."""
        await self._forwarding.wait_empty()

    async def run_diagnostics(self) -> dict[str, tuple[Stage, ...]]:
        """Return what is found on the way to the agent, stage by stage, by each relay server, whose URLs are the keys.

        All is tried anew, over connections of its own, whether there is a connection or not.
        """
        # Most never need it.
        from tunnel_relay.diagnosis import diagnose

        settings = self.settings
        return await diagnose(settings.dial, self._token, agent=settings.agent, mode=settings.mode)

    @property
    def state(self) -> TunnelState:
        """How it is now."""
        dialing = self._dialing
        if dialing is None:
            return TunnelState(connected=False, relay="", reason="not connected", category=Category.NETWORK)
        active = dialing.state.active
        relay = "" if active is None else active.url
        if self._reaching.attached:
            return TunnelState(connected=True, relay=relay, reason="", category=None)
        if not dialing.linked:
            return TunnelState(connected=False, relay="", reason=dialing.reason, category=dialing.category)
        reason = self._reaching.why_not or "the agent has not answered yet"
        return TunnelState(connected=False, relay=relay, reason=reason, category=Category.SERVER)

    @property
    def metrics(self) -> TunnelMetrics:
        """How it has fared until now."""
        dialing, forwarding, figures = self._dialing, self._forwarding, self._figures
        linked = dialing is not None and dialing.linked
        return TunnelMetrics(
            requests=figures.done + figures.not_done,
            success_rate=figures.success_rate,
            latency=figures.latency(),
            errors=dict(figures.errors),
            reconnections=self._reconnections + (max(dialing.reconnections, 0) if dialing else 0),
            round_trip=None if dialing is None else dialing.round_trip,
            uptime=trio.current_time() - dialing.since if dialing is not None and linked else 0.0,
            queued=len(forwarding),
            pressed=forwarding.pressed,
        )

    def _dial(self) -> Dialing:
        if self._dialing is None:
            self._dialing = Dialing(
                self._reaching,
                self.settings.dial,
                self._token,
                rng=random.SystemRandom().random,
                unix_time=time.time,
                notify=self._happened,
            )
            self._scope, self._over = trio.CancelScope(), trio.Event()
            self._nursery.start_soon(self._run, self._dialing)
        return self._dialing

    async def _wait_sent(self, dialing: Dialing) -> None:
        """Wait until what there is to send is with the network, there is no link for it, or time is up."""
        with trio.move_on_after(PARTING):
            async with trio.open_nursery() as nursery:

                async def until_over() -> None:
                    await self._over.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(until_over)
                await dialing.wait_sent()
                nursery.cancel_scope.cancel()

    async def _run(self, dialing: Dialing) -> None:
        try:
            with self._scope:
                await dialing.run()
        finally:
            self._reconnections += max(dialing.reconnections, 0)
            self._dialing = None
            self._reaching.detach()
            self._over.set()

    def _happened(self, event: DialEvent) -> None:
        if isinstance(event, DialFailed | LinkLost):
            self._figures.trouble(event.category)
        self._notify(event)


@asynccontextmanager
async def open_tunnel_service(
    settings: TunnelSettings,
    token: TokenSource,
    *,
    notify: Callable[[TunnelEvent], None] = lambda _event: None,
) -> AsyncGenerator[TunnelService]:
    """Have a tunnel for a block, which begins without a connection; *notify* is told what happens, and must not block.

    Requests of high priority that an earlier time has left are made once there is a connection.

    Raises:
      StoreError: the file of requests cannot be used.

    """
    async with AsyncExitStack() as stack:
        nursery: trio.Nursery = await stack.enter_async_context(open_background())
        reaching = Reaching(nursery, settings.agent, settings.session, settings.mode)
        store = None
        if settings.file is not None:
            store = await stack.enter_async_context(open_outbox_store(settings.file))
        opening = open_forwarding(reaching, settings=settings.outbox, store=store, notify=notify)
        forwarding = await stack.enter_async_context(opening)
        service = TunnelService(settings, token, nursery, reaching, forwarding, notify)
        try:
            yield service
        finally:
            with trio.CancelScope(shield=True):
                # Its waits are bounded. Where all this is cancelled, there is no link any more.
                await service.disconnect()


async def _first_of(*events: trio.Event) -> None:
    """Return when one of them is set."""
    async with trio.open_nursery() as nursery:

        async def until(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(until, event)

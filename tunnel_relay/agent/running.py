"""An agent: it dials out to its relay, and offers services to the clients of its own user."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from tunnel_relay.agent.offering import Offering
from tunnel_relay.answering import Answering
from tunnel_relay.background import open_background, wait_first
from tunnel_relay.dial_events import DialEvent
from tunnel_relay.dial_settings import DialSettings, TokenSource
from tunnel_relay.dialing import Dialing
from tunnel_relay.far_end import CONNECT_LIMIT
from tunnel_relay.performing import to_services
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.record import RecordSettings, open_record

# Agents have no other users than their own.
OWNER = ""

# Seconds for saying goodbye.
PARTING = 1.0

_INSTANCE = 8


@attrs.frozen
class ServiceUnreached:
    """A client wanted a service that cannot be reached; told once, until it is, or the reason is another."""

    service: str
    reason: str


AgentEvent = DialEvent | ServiceUnreached


@attrs.frozen(kw_only=True)
class AgentSettings:
    """What an agent is.

    Attributes:
      name: What clients call it.
      services: Host and port by name; nothing else can be reached.
      dial: How to get to the relay; what it says of us is added.
      session: Bounds of each client's session.
      connect: Seconds that reaching a service may take.
      record: The file that knows which requests were done; without one, none is.

    """

    name: str
    services: Mapping[str, tuple[str, int]]
    dial: DialSettings
    session: SessionSettings = attrs.field(factory=SessionSettings)
    connect: float = CONNECT_LIMIT
    record: Path | None = None


@attrs.frozen(eq=False)
class Agent:
    """A running agent: its sessions, and its way to the relay."""

    offering: Offering
    dialing: Dialing
    answering: Answering | None = None

    def change(
        self, services: Mapping[str, tuple[str, int]], session: SessionSettings, connect: float
    ) -> None:
        """Offer these *services* from now on; *session* holds for sessions that begin, and what is open goes on."""
        self.offering.services, self.offering.settings, self.offering.limit = services, session, connect
        if self.answering is not None:
            self.answering.connect = to_services(services)

    async def drain(self, detail: str) -> None:
        """Take nothing new, for the reason *detail*, and return when all that is under way is over.

        Streams that have no way, since there is no link, are not waited for; requests are.
        """
        self.offering.drain(detail)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wait_streams_over)
            if self.answering is not None:
                self.answering.draining = detail
                await self.answering.wait_over()

    async def _wait_streams_over(self) -> None:
        async with open_background() as nursery:
            over = trio.Event()

            async def wait() -> None:
                await self.offering.wait_streams_over()
                over.set()

            nursery.start_soon(wait)
            while (self.dialing.linked or self.dialing.lingers) and not over.is_set():
                await wait_first(over, self.dialing.changed)

    async def part(self, detail: str) -> None:
        """Give up all sessions, and see to it that clients hear so; waits for that no longer than `PARTING`."""
        with trio.move_on_after(PARTING):
            # Answers are not for those who only come back for them.
            await self.dialing.wait_sent()
        self.offering.close(detail)
        with trio.move_on_after(PARTING):
            # Their tasks say it first.
            await trio.lowlevel.checkpoint()
            await self.dialing.wait_sent()


@asynccontextmanager
async def open_agent(
    settings: AgentSettings,
    token: TokenSource,
    *,
    rng: Callable[[], float],
    unix_time: Callable[[], float],
    notify: Callable[[AgentEvent], None],
) -> AsyncGenerator[Agent]:
    """Run an agent for the length of a block; the other arguments are those of `Dialing`.

    Raises:
      StoreError: the record cannot be used.

    """
    instance = secrets.token_hex(_INSTANCE)
    query = [*settings.dial.query, ("agent", settings.name), ("instance", instance)]
    async with AsyncExitStack() as stack:
        record = None
        if settings.record is not None:
            record = await stack.enter_async_context(open_record(settings.record, RecordSettings()))
        nursery: trio.Nursery = await stack.enter_async_context(open_background())
        offering = Offering(nursery, settings.services, instance, settings.session)
        offering.limit = settings.connect
        offering.unreached = lambda service, reason: notify(ServiceUnreached(service, reason))
        answering = None
        if record is not None:
            answering = Answering(nursery, record, OWNER, to_services(settings.services))
            offering.asked, offering.record = answering.asked, record.id
        dial = attrs.evolve(settings.dial, query=query)
        dialing = Dialing(offering, dial, token, rng=rng, unix_time=unix_time, notify=notify)
        nursery.start_soon(dialing.run)
        yield Agent(offering, dialing, answering)

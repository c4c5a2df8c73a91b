"""``kind = "relay"``: a machine that can only dial out, through a relay server to which its agent is connected.

One session with the agent (or, where the relay speaks SSH, with the relay) outlives every WebSocket. Over a stream of
it runs SSH, or each connection is a stream of it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from session_proxy.errors import ExitCode, UnreachableError
from session_proxy.events import Notice, Notify
from session_proxy.outbound.links import LinkFailedError, LinkLostError, StripedLink
from session_proxy.outbound.relay_dialing import ERRORS, SecretTokens, dial_settings
from session_proxy.outbound.ssh_link import SshLink
from session_proxy.outbound.ssh_login import SshLogin, failed_login
from session_proxy.outbound.ssh_pool import PoolTransport, open_pool
from session_proxy.outbound.transport import Services
from session_proxy.profile.model import RelayUpstream
from session_proxy.target import Target
from tunnel_relay.background import open_background, wait_first
from tunnel_relay.category import Category
from tunnel_relay.client.reaching import Reaching
from tunnel_relay.dial_events import AuthenticationNeeded, DialEvent, Linked
from tunnel_relay.dialing import Dialing
from tunnel_relay.errors import SshError
from tunnel_relay.link import Link
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.relay_stream import RelayStream, StreamRefusedError, StreamResetError
from tunnel_relay.sessions import LiveSession
from tunnel_relay.ssh.settings import SshSettings

# One session carries as much as the network does, so striping would gain nothing.
SESSIONS = 1

# SSH must not give up while the session below it goes on over another WebSocket; that has its own liveness check.
PATIENCE = 30.0

# Seconds for saying goodbye.
PARTING = 1.0

# Trouble that goes away only where a person does something.
_FOR_PEOPLE = (Category.AUTHENTICATION, Category.CONFIGURATION)


@attrs.define(eq=False)
class Way:
    """The way to an agent: a `Carrier` that is away while there is no link, or no agent."""

    reaching: Reaching
    dialing: Dialing

    @property
    def away(self) -> str:
        """See `StripedLink.away`."""
        return "" if self.reaching.attached else self._why_not()

    async def wait_away_changed(self) -> None:
        """See `StripedLink.wait_away_changed`."""
        before = self.away
        while self.away == before:
            await self._wait_change()

    async def wait_there(self) -> LiveSession:
        """Return the session when there is a way.

        Raises:
          LinkFailedError: there is none for now.

        """
        self.dialing.demand()
        live = self.reaching.begin()
        while not self.reaching.attached:
            if self.dialing.failing:
                needs_person = self.dialing.category in _FOR_PEOPLE
                code = {
                    Category.AUTHENTICATION: ExitCode.NOT_PERMITTED,
                    Category.CONFIGURATION: ExitCode.CONFIGURATION,
                }.get(self.dialing.category, ExitCode.UNREACHABLE)
                raise LinkFailedError(self._why_not(), needs_person=needs_person, exit_code=code)
            if self.reaching.why_not is not None:
                denied = self.reaching.denied
                code = ExitCode.NOT_PERMITTED if denied else ExitCode.UNREACHABLE
                raise LinkFailedError(self._why_not(), needs_person=denied, exit_code=code)
            await self._wait_change()
        return live

    async def keep_telling(self, back: Callable[[], None]) -> None:
        """Call *back* whenever the link is back, or the agent, until cancelled."""
        linked = attached = False
        while True:
            before, linked, attached = (linked, attached), self.dialing.linked, self.reaching.attached
            if (linked and not before[0]) or (attached and not before[1]):
                back()
            await self._wait_change()

    async def probe(self) -> float:
        """Return how long a sign of life of the relay has taken; where the link is lost, the next one is asked."""
        began, answer = trio.current_time(), trio.Event()
        asked: Link | None = None
        while not answer.is_set():
            link = self.dialing.link
            if link is not None and link is not asked:
                asked, answer = link, link.ping()
            await wait_first(answer, self.dialing.changed)
        return trio.current_time() - began

    def details(self) -> tuple[tuple[str, str], ...]:
        """Return what ``sproxy status`` tells of it."""
        dialing = self.dialing
        active, round_trip = dialing.state.active, dialing.round_trip
        return (
            *([] if active is None else [("relay", active.url)]),
            *([] if round_trip is None else [("round trip", f"{round_trip * 1e3:.1f} ms")]),
            *([("reconnections", str(dialing.reconnections))] if dialing.reconnections > 0 else []),
        )

    def _why_not(self) -> str:
        return self.dialing.reason or self.reaching.why_not or "the agent has not answered yet"

    async def _wait_change(self) -> None:
        await wait_first(self.reaching.changed, self.dialing.changed)


async def open_through_relay(live: LiveSession, target: Target) -> RelayStream:
    """Return a stream to *target*, to which the relay leads by the SSH that it speaks itself.

    Raises:
      DialError: *target* could not be reached.
      LinkLostError: the session is lost.

    """
    try:
        stream = live.open_stream(str(target).encode())
    except StreamResetError as exc:
        raise LinkLostError(str(exc)) from exc
    try:
        await stream.wait_accepted()
    except StreamRefusedError as exc:
        raise ERRORS.get(exc.reason, UnreachableError)(str(exc)) from exc
    except StreamResetError as exc:
        raise LinkLostError(str(exc)) from exc
    except BaseException:
        # Nobody waits for the answer any more.
        await trio.aclose_forcefully(stream)
        raise
    return stream


@attrs.frozen(eq=False)
class RelaySshLink:
    """A `StripedLink` whose streams the relay leads on, by the SSH that it speaks itself."""

    way: Way
    live: LiveSession

    @property
    def streams(self) -> int:
        """See `Link.streams`."""
        return self.live.streams

    @property
    def away(self) -> str:
        """See `StripedLink.away`."""
        return self.way.away

    async def wait_away_changed(self) -> None:
        """See `StripedLink.wait_away_changed`."""
        await self.way.wait_away_changed()

    @property
    def flowing(self) -> bool:
        """See `StripedLink.flowing`; there is but one link."""
        return False

    async def open(self, target: Target) -> RelayStream:
        """See `Link.open`."""
        return await open_through_relay(self.live, target)

    async def probe(self) -> float:
        """See `Link.probe`; the far end is the relay, which speaks SSH from there on."""
        if self.live.session.lost is not None:
            raise LinkLostError(self.live.session.lost)
        return await self.way.probe()

    async def wait_lost(self) -> str:
        """See `Link.wait_lost`."""
        return await self.live.wait_lost()


@attrs.frozen(eq=False)
class ServiceLogin:
    """How to log in to an agent's service."""

    name: str
    upstream: RelayUpstream
    login: SshLogin

    @asynccontextmanager
    async def open_link(self, live: LiveSession) -> AsyncGenerator[SshLink]:
        """Log in through the session *live* for the length of a block.

        Raises:
          LinkFailedError: the agent does not offer the service.
          SshError: no login.

        """
        settings = SshSettings(
            keepalive_interval=PATIENCE, keepalive_timeout=PATIENCE + live.session.settings.grace
        )
        identities = await self.login.identities()
        async with (
            await self._open_service(live) as stream,
            self.login.open_link(stream, self._known_as(), identities, settings=settings) as link,
        ):
            yield link

    def _known_as(self) -> str:
        """Return what the agent's host key is recorded under: agents have no address."""
        return f"{self.upstream.agent or 'agent'}.{self.name}.relay"

    async def _open_service(self, live: LiveSession) -> RelayStream:
        try:
            stream = live.open_stream(self.upstream.service.encode())
            await stream.wait_accepted()
        except StreamRefusedError as exc:
            needs_person = exc.reason in (Reason.NO_SUCH_SERVICE, Reason.NOT_ALLOWED)
            raise LinkFailedError(
                f"the agent's service {self.upstream.service!r}: {exc}", needs_person=needs_person
            ) from exc
        except StreamResetError as exc:
            raise LinkFailedError(str(exc)) from exc
        return stream


@attrs.frozen(eq=False)
class RelaySource:
    """A `LinkSource` of the one link that there is."""

    upstream: RelayUpstream
    login: ServiceLogin
    way: Way

    @property
    def entries(self) -> tuple[str, ...]:
        """See `LinkSource.entries`."""
        return (f"agent {self.upstream.agent}" if self.upstream.agent else "the agent",)

    async def resolve(self, entry: str) -> tuple[str, ...]:
        """See `LinkSource.resolve`: an agent stands for itself."""
        await trio.lowlevel.checkpoint()
        return (entry,)

    @asynccontextmanager
    async def connect(self, instance: str) -> AsyncGenerator[StripedLink]:
        """See `LinkSource.connect`; there is but one *instance*."""
        del instance
        if self.upstream.mode == Mode.RELAY_SSH.value:
            yield RelaySshLink(self.way, await self.way.wait_there())
            return
        live = await self.way.wait_there()
        try:
            async with self.login.open_link(live) as link:
                yield attrs.evolve(link, carrier=self.way)
        except SshError as exc:
            raise failed_login(exc) from exc


@asynccontextmanager
async def open_relay_transport(
    name: str, upstream: RelayUpstream, services: Services
) -> AsyncGenerator[PoolTransport]:
    """Keep a session with an agent up for the length of a block.

    Raises:
      LinkFailedError: the upstream is required and does not work.

    """
    settings = await dial_settings(upstream.endpoints, upstream.ca, services.environ)
    async with open_background() as nursery:
        reaching = Reaching(nursery, upstream.agent or "", SessionSettings(), Mode(upstream.mode))
        dialing = Dialing(
            reaching,
            settings,
            SecretTokens(upstream.token),
            rng=services.rng.random,
            unix_time=time.time,
            notify=Reporter(name, services.notify),
        )
        running = trio.CancelScope(shield=True)
        nursery.start_soon(_run, dialing, running)
        login = ServiceLogin(name, upstream, SshLogin(name, upstream.ssh, services))
        way = Way(reaching, dialing)
        source = RelaySource(upstream, login, way)
        try:
            async with open_pool(
                name,
                source,
                sessions=SESSIONS,
                required=upstream.startup != "background",
                services=services,
                details=way.details,
            ) as transport:
                nursery.start_soon(way.keep_telling, transport.hurry)
                yield transport
        finally:
            # Else the agent would keep the session, and what it leads to, for whoever does not come back.
            reaching.part("the client has ended")
            with trio.move_on_after(PARTING, shield=True):
                await dialing.wait_sent()
            running.cancel()


async def _run(dialing: Dialing, running: trio.CancelScope) -> None:
    """Keep a link until *running* is cancelled: a farewell needs it though all else has been cancelled."""
    with running:
        await dialing.run()


@attrs.define(eq=False)
class Reporter:
    """Tells *notify* what the pool cannot: which server is used, and that somebody has to log in again."""

    name: str
    _notify: Notify = attrs.field(repr=False)
    _url: str = attrs.field(default="", init=False)

    def __call__(self, event: DialEvent) -> None:
        """Tell of *event*."""
        match event:
            case Linked(url=url) if url != self._url:
                self._url = url
                self._notify(Notice(self.name, f"uses the relay {url}"))
            case AuthenticationNeeded(reason=reason):
                self._notify(Notice(self.name, f"a new token is needed: {reason}", "warning"))
            case _:
                pass

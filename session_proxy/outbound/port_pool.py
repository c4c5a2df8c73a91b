"""A session per destination, made when it is wanted and closed when it has been idle.

AWS Session Manager's own port forwarding works so: a session leads to one host and port, and carries many
connections to it. Where one of them holds up the others, new ones get another session. Between sessions nothing is
connected; that the instance is there is proven at the start, and now and then later, by a session that carries
nothing.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import attrs
import trio

from session_proxy.errors import TransportDownError, UdpUnsupportedError
from session_proxy.events import LinksChanged, UpstreamDown, UpstreamUp
from session_proxy.outbound.links import Link, LinkFailedError, LinkLostError
from session_proxy.outbound.rotating import RotatingTransport
from session_proxy.outbound.ssh_pool import RESOLVE_LIMIT, SETUP_LIMIT
from session_proxy.outbound.transport import DatagramAssociation, Health, HealthState, Services
from session_proxy.policy.rotation import Attempt, Resolve, Rest, Rotation
from session_proxy.target import Target
from tunnel_relay.background import open_background

# Sessions at one time. A browser's page needs a handful of hosts; each session is a WebSocket and a process on the
# instance, so this is a bound for accidents (a port scan through the proxy), not for use.
MOST_SESSIONS = 32

# Sessions to one destination. Each beside the first is there because a connection through another is not read.
MOST_TO_ONE = 4

# A session without connections is closed after this long: AWS bills nothing for it, but the instance runs a process.
IDLE_BEFORE_CLOSING = 60.0
IDLE_CHECK = 10.0

# How often an instance is proven while no session does it.
PROBE_INTERVAL = 300.0

# Where the proving session would lead to. Nothing connects there: the agent dials when a connection is opened.
PROBE_TARGET = Target("localhost", 22)


class PortLink(Link, Protocol):
    """A `Link` to one destination."""

    @property
    def held_up(self) -> bool:
        """Whether a stream more would wait for something else than its destination."""
        ...


class PortSource(Protocol):
    """How sessions to destinations are made."""

    @property
    def entries(self) -> tuple[str, ...]:
        """What the profile lists, best first."""
        ...

    async def resolve(self, entry: str) -> tuple[str, ...]:
        """Return the instances that *entry* stands for; raises `LinkFailedError`."""
        ...

    def connect(self, instance: str, target: Target) -> AbstractAsyncContextManager[PortLink]:
        """Start a session on *instance* that leads to *target*; entering raises `LinkFailedError`."""
        ...


@attrs.define(eq=False)
class _Session:
    """A session to *target*, from when it is wanted; *failure* or *link* is set when *settled* is."""

    instance: str
    target: Target
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    settled: trio.Event = attrs.field(factory=trio.Event)
    link: PortLink | None = None
    failure: LinkFailedError | None = None
    waiting: int = 0
    idle_since: float | None = None

    @property
    def in_use(self) -> bool:
        """Whether a connection is open, or about to be."""
        return self.waiting > 0 or self.streams > 0

    @property
    def streams(self) -> int:
        """How many connections it carries."""
        return self.link.streams if self.link is not None else 0

    @property
    def held_up(self) -> bool:
        """Whether a connection more would wait for another one."""
        return self.link is not None and self.link.held_up


@attrs.define(eq=False)
class PortTransport(RotatingTransport):
    """A `Transport` over port forwarding sessions. Open it with `open_port_pool`."""

    _source: PortSource
    _nursery: trio.Nursery
    _instance: str | None = attrs.field(default=None, init=False)
    _sessions: list[_Session] = attrs.field(factory=list[_Session], init=False)
    _told_size: int = attrs.field(default=0, init=False)

    async def connect_tcp(self, target: Target) -> trio.abc.Stream:
        """Open a connection to *target* through its session, which is made where there is none.

        The stream is not half-closeable: the agent closes both directions when one ends.

        Raises:
          TransportDownError: no instance can be reached, or too many destinations are in use.
          DialError: the agent could not reach *target*.

        """
        while True:
            self._check_not_down()
            if self._instance is None:
                await self._changed.wait()
                continue
            session = self._choose(target) or self._open_session(self._instance, target)
            session.waiting += 1
            try:
                await session.settled.wait()
                if session.link is not None:
                    return await session.link.open(target)
            except LinkLostError:
                # It ended under us; nothing was sent yet, so a new session may carry the connection.
                self._forget(session)
            finally:
                session.waiting -= 1
            if session.failure is not None and self._instance == session.instance:
                # The instance serves other destinations, so this one alone has bad luck.
                raise TransportDownError(str(session.failure), upstream=self.name)

    async def open_udp(self) -> DatagramAssociation:
        """Raise `UdpUnsupportedError`: Session Manager forwards TCP only."""
        raise UdpUnsupportedError("Session Manager carries no UDP")

    def health(self) -> Health:
        """Return the state; READY means that the last session that was tried came up."""
        return self._health

    def streams(self) -> int:
        """Return how many connections its sessions carry, those being opened included."""
        return sum(session.streams + session.waiting for session in self._sessions)

    async def run(self) -> None:
        """Find an instance, and prove it now and then, until cancelled."""
        while True:
            self._poked = trio.Event()
            if self._instance is not None:
                with trio.move_on_after(PROBE_INTERVAL):
                    await self._poked.wait()
                if (idle := self._idle_instance()) is not None:
                    await self._prove(idle)
                continue
            match self._rotation.next_step(trio.current_time()):
                case Resolve(entry):
                    await self._resolve(entry)
                case Attempt(instance):
                    await self._prove(instance)
                case Rest(until):
                    with trio.move_on_at(until):
                        await self._poked.wait()

    def _idle_instance(self) -> str | None:
        return None if self._sessions else self._instance

    async def _resolve(self, entry: str) -> None:
        try:
            with trio.fail_after(RESOLVE_LIMIT):
                instances = await self._source.resolve(entry)
        except LinkFailedError as exc:
            self._failed(entry, exc)
        except trio.TooSlowError:
            self._failed(entry, LinkFailedError(f"not found within {RESOLVE_LIMIT:g} s"))
        else:
            self._rotation.resolved(entry, instances, trio.current_time())

    async def _prove(self, instance: str) -> None:
        began = trio.current_time()
        try:
            with trio.move_on_after(SETUP_LIMIT) as setup:
                async with self._source.connect(instance, PROBE_TARGET):
                    setup.deadline = math.inf
                    self._proven(instance, trio.current_time() - began)
            if setup.cancelled_caught:
                self._failed(instance, LinkFailedError(f"not connected within {SETUP_LIMIT:g} s"))
        except LinkFailedError as exc:
            self._failed(instance, exc)

    def _proven(self, instance: str, setup: float) -> None:
        self._rotation.proven(instance)
        if self._instance is None:
            self._notify(UpstreamUp(self.name, instance, setup))
        self._instance = instance
        self._update("")

    def _choose(self, target: Target) -> _Session | None:
        """Return the session for one more connection to *target*; `None`: open one."""
        there = [session for session in self._sessions if session.target == target]
        free = [session for session in there if not session.held_up]
        if not free and len(there) < MOST_TO_ONE and (not there or len(self._sessions) < MOST_SESSIONS):
            return None
        return free[0] if free else min(there, key=lambda session: session.streams)

    def _open_session(self, instance: str, target: Target) -> _Session:
        if len(self._sessions) >= MOST_SESSIONS:
            self._evict()
        session = _Session(instance, target)
        self._sessions.append(session)
        self._nursery.start_soon(self._run_session, session)
        return session

    def _evict(self) -> None:
        """Make room for one more session."""
        for session in self._sessions:
            if session.settled.is_set() and not session.in_use:
                session.scope.cancel()
                self._forget(session)
                return
        raise TransportDownError(
            f'all {MOST_SESSIONS} sessions are in use by other destinations; use kind = "ssm" for that many',
            upstream=self.name,
        )

    async def _run_session(self, session: _Session) -> None:
        """Make one session, and stay with it to its end."""
        with session.scope:
            try:
                with trio.move_on_after(SETUP_LIMIT) as setup:
                    async with self._source.connect(session.instance, session.target) as link:
                        setup.deadline = math.inf
                        session.link = link
                        session.settled.set()
                        self._update("")
                        await self._watch(session, link)
                        self._forget(session)
                if setup.cancelled_caught:
                    session.failure = LinkFailedError(f"not connected within {SETUP_LIMIT:g} s")
            except LinkFailedError as exc:
                # A session that was up may end badly too; that is no news about the instance.
                session.failure = exc if session.link is None else None
            finally:
                self._forget(session)
        if session.failure is not None and not self._sessions:
            self._failed(session.instance, session.failure)
        session.settled.set()

    async def _watch(self, session: _Session, link: Link) -> None:
        """Return when *link* has ended or been idle for long."""
        while True:
            with trio.move_on_after(IDLE_CHECK):
                reason = await link.wait_lost()
                self._notify(UpstreamDown(self.name, session.instance, f"{session.target}: {reason}", None))
                return
            now = trio.current_time()
            if session.in_use:
                session.idle_since = None
            elif session.idle_since is None:
                session.idle_since = now
            elif now - session.idle_since >= IDLE_BEFORE_CLOSING:
                return

    def _forget(self, session: _Session) -> None:
        if session in self._sessions:
            self._sessions.remove(session)
            self._update("")

    def _failed(self, via: str, failure: LinkFailedError) -> None:
        rest = self._rotation.failed(via, str(failure), trio.current_time(), slow=failure.needs_person)
        self._failure = failure
        if via == self._instance:
            self._instance = None
        self._notify(UpstreamDown(self.name, via, str(failure), rest))
        self._poked.set()
        self._update(f"{via}: {failure}")

    def _update(self, reason: str) -> None:
        if self._instance is not None:
            state, reason = HealthState.READY, ""
        else:
            state, reason = self._state_without_link(reason)
        via = (("via", self._instance),) if self._instance is not None else ()
        up = sum(session.link is not None for session in self._sessions)
        if self._told_size != up:
            self._told_size = up
            self._notify(LinksChanged(self.name, up))
        self._publish(state, reason, (*via, ("sessions", str(up))))


@asynccontextmanager
async def open_port_pool(
    name: str, source: PortSource, *, required: bool, services: Services
) -> AsyncGenerator[PortTransport, None]:
    """Offer sessions from *source* for the length of a block.

    Yields when an instance is proven; at once where the upstream is not *required*.

    Raises:
      LinkFailedError: the upstream is *required*, and every instance has failed.

    """
    async with open_background() as nursery:
        transport = PortTransport(
            name, Rotation(source.entries, services.rng), services.notify, source, nursery
        )
        nursery.start_soon(transport.run)
        if required:
            await transport.wait_settled()
        yield transport

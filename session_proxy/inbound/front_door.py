"""What the clients of one front door share, and what is known of each of them."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Protocol

import attrs
import trio

from session_proxy.errors import DialError
from session_proxy.events import ConnectionClosed, Notify
from session_proxy.inbound.departures import Departures, ended_by_departure
from session_proxy.inbound.patience import Patience
from session_proxy.inbound.relaying import Relays, Traffic
from session_proxy.outbound.failover import Connected
from session_proxy.outbound.socket_stream import PlainSocketStream
from session_proxy.outbound.transport import EarlyBytes, Transport
from session_proxy.policy.rules import Decision
from session_proxy.profile.model import Auth, Limits
from session_proxy.target import Target

# How long a stream to a destination may take to close in good order.
CLOSING = 5.0


class Transports(Protocol):
    """Upstreams by name."""

    def __getitem__(self, name: str, /) -> Transport:
        """Return the upstream called *name*; raises `KeyError`."""
        ...


class Dialer(Protocol):
    """What decides where a connection goes, and opens it: `session_proxy.outbound.failover.Dialer`."""

    @property
    def transports(self) -> Transports:
        """Every upstream by name, ``direct`` included."""
        ...

    async def decide(self, target: Target) -> Decision:
        """Return the rule for *target* and its upstreams."""
        ...

    async def connect(self, target: Target, decision: Decision, early: EarlyBytes | None = None) -> Connected:
        """Open a stream to *target* within the dialer's own limit, with *early* bytes or not; raises `DialError`."""
        ...


@attrs.define(eq=False)
class Visit:
    """One client's connection, as the event at its end will tell it.

    *outcome* holds for a connection that is cut off; whatever ends it in another way says so.
    """

    id: int
    client: str
    opened: float
    protocol: str = "unknown"
    target: Target | None = None
    rule: str = ""
    upstream: str = ""
    traffic: Traffic = attrs.field(factory=Traffic)
    connect_duration: float | None = None
    outcome: str = "drained"
    detail: str = ""

    def ended(self, outcome: str, detail: str = "") -> None:
        """Note how the connection ended."""
        self.outcome = outcome
        self.detail = detail

    def closed(self, now: float) -> ConnectionClosed:
        """Return the event that says how it went."""
        return ConnectionClosed(
            id=self.id,
            client=self.client,
            protocol=self.protocol,
            target=self.target,
            rule=self.rule,
            upstream=self.upstream,
            sent=self.traffic.sent,
            received=self.traffic.received,
            duration=now - self.opened,
            connect_duration=self.connect_duration,
            outcome=self.outcome,
            detail=self.detail,
        )


@attrs.define(eq=False)
class FrontDoor:
    """The way in: everything that a client's handler needs."""

    dialer: Dialer
    auth: Auth | None
    limits: Limits
    notify: Notify
    relays: Relays
    departures: Departures
    patience: Patience = attrs.field(init=False)
    open_connections: int = attrs.field(default=0, init=False)
    draining: bool = attrs.field(default=False, init=False)
    _ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), init=False)
    _pauses: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope], init=False)

    def __attrs_post_init__(self) -> None:
        self.patience = Patience(self.limits.handshake)

    def change(self, auth: Auth | None, limits: Limits) -> None:
        """Have these hold from now on; who has been let in stays."""
        self.auth, self.limits = auth, limits
        self.patience.limit = limits.handshake
        self.relays.limit_idleness(limits.idle)

    def next_id(self) -> int:
        """Return a number that no other connection of this door has."""
        return next(self._ids)

    def admits(self, user: bytes, password: bytes) -> bool:
        """Tell whether the credentials are those of the profile; takes as long for any that are wrong."""
        if self.auth is None:
            return True
        user_matches = _matches(user, self.auth.user)
        password_matches = _matches(password, self.auth.password.reveal())
        return user_matches and password_matches

    async def dial(
        self,
        visit: Visit,
        near: PlainSocketStream,
        target: Target,
        *,
        early: EarlyBytes | None = None,
        grace: float = 0.0,
    ) -> trio.abc.Stream:
        """Open a stream to *target*, by the routes; note in *visit* how that went. The dialer has its limit.

        It is given up when the client on *near* leaves; where that has only ended its side of the connection, after
        *grace* seconds. What is then left of the *early* bytes for the destination is for the caller to send.

        Raises:
          DialError: it cannot be reached.
          trio.BrokenResourceError: the client left.

        """
        visit.target = target
        # Of a connection that is kept, the request before this one may have left its own.
        visit.upstream, visit.connect_duration = "", None
        started = trio.current_time()
        try:
            with ended_by_departure(self.departures, near, grace=grace):
                decision = await self.dialer.decide(target)
                visit.rule = decision.rule
                connected = await self.dialer.connect(target, decision, early)
                if early is not None:
                    visit.traffic.sent += early.ahead
                visit.upstream = connected.upstream
                visit.connect_duration = trio.current_time() - started
                return connected.stream
        except DialError as exc:
            visit.upstream = exc.upstream
            visit.ended(exc.reason, str(exc))
            raise
        raise trio.BrokenResourceError("the client left")

    @contextmanager
    def pause(self) -> Generator[trio.CancelScope]:
        """Wait inside this block for a request that may never come: it is cancelled when the door drains."""
        with trio.CancelScope() as scope:
            if self.draining:
                scope.cancel()
            self._pauses.add(scope)
            try:
                yield scope
            finally:
                self._pauses.discard(scope)

    def drain(self) -> None:
        """Let what is under way go on, and send away who only waits."""
        self.draining = True
        self.relays.drain()
        for scope in self._pauses:
            scope.cancel()


def _matches(presented: bytes, expected: str) -> bool:
    # Digests are of one length, so that the comparison does not tell how long the secret is.
    return hmac.compare_digest(
        hashlib.sha256(presented).digest(), hashlib.sha256(expected.encode("utf-8")).digest()
    )

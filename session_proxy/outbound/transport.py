"""The interface between the front door and whatever carries its connections."""

from __future__ import annotations

import enum
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs
import trio

from session_proxy.events import Notify, ignore
from session_proxy.outbound.passphrases import TerminalPassphrases
from session_proxy.target import Target


class HealthState(enum.StrEnum):
    """How usable a transport is now."""

    STARTING = "starting"
    READY = "ready"
    DOWN = "down"


@attrs.frozen
class Health:
    """A transport's state, why it is in it, and since when (seconds on Trio's clock).

    READY is proven by an in-band probe, not by the absence of errors. With a *reason*, it is in doubt again.
    """

    state: HealthState
    reason: str = ""
    since: float = 0.0
    details: tuple[tuple[str, str], ...] = ()

    @property
    def sure(self) -> bool:
        """Whether it is READY, and nothing speaks against that."""
        return self.state is HealthState.READY and not self.reason


class DatagramAssociation(Protocol):
    """A UDP association through one transport; the transport's block bounds its life."""

    async def send(self, target: Target, payload: bytes) -> None:
        """Send one datagram to *target*; losing it is allowed, blocking for long is not."""
        ...

    async def receive(self) -> tuple[Target, bytes]:
        """Return the next datagram and where it came from."""
        ...

    async def aclose(self) -> None:
        """Release what the association holds."""
        ...


@attrs.define(eq=False)
class EarlyBytes:
    """The first bytes for a destination, which may travel with the request for a connection to it.

    Attributes:
      data: The bytes.
      repeatable: Whether it does no harm if they arrive twice.
      sent: Whether they may have arrived; certain where a connection came of it.

    """

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    repeatable: bool = False
    sent: bool = attrs.field(default=False, init=False)

    @property
    def ahead(self) -> int:
        """How many bytes have gone ahead of the connection that came of it."""
        return len(self.data) if self.sent else 0

    @property
    def left(self) -> bytes:
        """What is still to be sent when there is a connection."""
        return b"" if self.sent else self.data

    @property
    def is_spent(self) -> bool:
        """Whether they must not be sent to the destination again, although there is no connection."""
        return self.sent and not self.repeatable


class Transport(Protocol):
    """One upstream. Open it with `session_proxy.outbound.opening.open_transport`."""

    async def connect_tcp(self, target: Target) -> trio.abc.Stream:
        """Connect to *target*; half-closeable where the transport can.

        Waits, without a limit of its own, while the transport is coming up: the caller holds the deadline.
        A transport that is known to be down raises at once.

        Raises:
          DialError: the subclass says why.

        """
        ...

    async def open_udp(self) -> DatagramAssociation:
        """Open a UDP association; raises `UdpUnsupportedError` where there is none."""
        ...

    async def wait_usable(self) -> None:
        """Return when the transport is not (or no longer) known to be down; somebody would like to use it.

        Raises:
          TransportDownError: waiting is of no use, because a person has to change something first.

        """
        ...

    async def wait_changed(self) -> None:
        """Return when `health` may say something else than it does now; it may turn out to be the same."""
        ...

    def health(self) -> Health:
        """Return the state of this transport, without waiting."""
        ...

    def streams(self) -> int:
        """Return how many connections and UDP associations it carries, where closing it would end them."""
        ...


@runtime_checkable
class EarlyTransport(Protocol):
    """A `Transport` whose requests for connections carry the first bytes for them: a round trip less for each."""

    async def connect_tcp_early(self, target: Target, early: EarlyBytes) -> trio.abc.Stream:
        """Connect to *target* as `Transport.connect_tcp` does; what to do about *early* then, it says itself.

        Its ``sent`` is set before they leave. It stays so whatever becomes of the request, cancelled or not, except
        where they are known not to have arrived.

        Raises:
          DialError: the subclass says why.

        """
        ...


@runtime_checkable
class ProvableTransport(Protocol):
    """A `Transport` that can be asked whether its far end is there, sooner than it would notice by itself."""

    async def prove(self) -> None:
        """Ask the far end for a sign of life, and return when there was any since; there may never be one."""
        ...


@attrs.frozen(kw_only=True)
class Services:
    """What a transport may use of the process around it.

    *environ* is read for what people set there on purpose: HTTP proxies, AWS endpoints, ssh-agent's socket.
    """

    notify: Notify = ignore
    rng: random.Random = attrs.field(factory=random.Random, repr=False)
    state_dir: Path = attrs.field(factory=Path.cwd)
    environ: Mapping[str, str] = attrs.field(factory=os.environ.copy, repr=False)
    passphrases: TerminalPassphrases = attrs.field(factory=TerminalPassphrases, repr=False)

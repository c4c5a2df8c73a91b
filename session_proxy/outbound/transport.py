"""The interface between the front door and whatever carries its connections."""

from __future__ import annotations

import enum
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

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

    def health(self) -> Health:
        """Return the state of this transport, without waiting."""
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

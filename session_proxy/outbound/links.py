"""What a pool of links needs of the links themselves, and what goes wrong with them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from session_proxy.errors import ExitCode, SessionProxyError
from session_proxy.target import Target


class LinkFailedError(SessionProxyError):
    """A link could not be made; *needs_person* says that trying again soon cannot help."""

    def __init__(
        self, reason: str, *, needs_person: bool = False, exit_code: ExitCode = ExitCode.UNREACHABLE
    ) -> None:
        self.needs_person = needs_person
        self.exit_code = exit_code
        super().__init__(reason)


class LinkLostError(SessionProxyError):
    """A link that was up ended; the message says why."""


class Link(Protocol):
    """One multiplexed connection, such as an SSH session, that is up."""

    @property
    def streams(self) -> int:
        """How many streams it carries, those that are being opened included."""
        ...

    async def open(self, target: Target) -> trio.abc.Stream:
        """Open a stream to *target*.

        Raises:
          DialError: the far end could not reach *target*.
          LinkLostError: the link ended.

        """
        ...

    async def probe(self) -> float:
        """Ask the far end for a sign of life, in band; return the round trip in seconds.

        Raises:
          LinkLostError: the link ended.

        """
        ...

    async def wait_lost(self) -> str:
        """Return why the link ended, once it has; a far end that stops answering probes has ended it too."""
        ...


class StripedLink(Link, Protocol):
    """A `Link` that carries streams to any destination, beside others of its kind."""

    @property
    def away(self) -> str:
        """Why its far end cannot be reached for now, while the way there is being mended; "" where it can.

        Its streams live on, and go on when it is back.
        """
        ...

    async def wait_away_changed(self) -> None:
        """Wait until `away` is another."""
        ...

    @property
    def flowing(self) -> bool:
        """Whether so much arrives on it now that another stream would get a part of it only."""
        ...


class LinkSource(Protocol):
    """How links to the instances of one upstream are made."""

    @property
    def entries(self) -> tuple[str, ...]:
        """What the profile lists, best first; each stands for one instance or several."""
        ...

    async def resolve(self, entry: str) -> tuple[str, ...]:
        """Return the instances that *entry* stands for; raises `LinkFailedError`."""
        ...

    def connect(self, instance: str) -> AbstractAsyncContextManager[StripedLink]:
        """Make a link to *instance* and hold it for a block; entering raises `LinkFailedError`.

        Leaving the block ends the streams that are still open with a reset.
        """
        ...

"""What the halves of a channel share, and what they need of their connection."""

from __future__ import annotations

from typing import Protocol

import attrs
import trio

from tunnel_relay.errors import SshDisconnectedError, SshError
from tunnel_relay.ssh.packets import Part, Read


class Sender(Protocol):
    """What wants to send more than fits at once."""

    queued: bool
    """Whether the carrier has it in its queue; the carrier's to set."""

    @property
    def sendable(self) -> bool:
        """Whether there is something to send and the peer would take it."""
        ...

    def write(self, most: int = 0) -> None:
        """Write what is pending, *most* bytes or one message of it. Called only while `sendable`."""
        ...


class Flusher(Protocol):
    """What passes on what it was given, once for all of it."""

    def flush(self) -> None:
        """Pass it on."""
        ...


class Carrier(Protocol):
    """What a channel needs of its connection."""

    @property
    def failure(self) -> SshError | None:
        """Why the connection ended, once it has."""
        ...

    def send(self, *parts: Part) -> None:
        """Send one message as soon as no key exchange is in the way."""
        ...

    def room(self) -> int:
        """Return how many bytes of data may be written now; 0: there are others before."""
        ...

    def offer(self, sender: Sender) -> None:
        """Send what *sender* has pending, in its turn."""
        ...

    def write_data(self, recipient: int, data: memoryview, most: int) -> None:
        """Write *data* to the peer's channel *recipient*, *most* bytes in a message."""
        ...

    def read_data(self, recipient: int, read: Read, most: int, limit: int) -> int:
        """Send what *read* reads, up to *limit* bytes and never more than `room`; return how many."""
        ...

    def flush_later(self, flusher: Flusher) -> None:
        """Call *flusher* when everything that has arrived has been handed out."""
        ...


@attrs.define(eq=False)
class Standing:
    """How a channel stands: the number that the peer knows it by, and who may still use it."""

    carrier: Carrier
    remote: int = 0
    flowing: bool = False
    """The peer has opened the channel, and not closed it."""
    closed: bool = False
    """It was closed here."""

    def must_flow(self) -> None:
        """Raise `SshDisconnectedError` where the peer uses what it has not opened, or has closed."""
        if not self.flowing:
            raise SshDisconnectedError("the server used a channel that is not open")

    def check_usable(self) -> None:
        """Raise `trio.ClosedResourceError` where the channel was closed here."""
        if self.closed:
            raise trio.ClosedResourceError("the channel is closed")

    def check_connection(self) -> None:
        """Raise `trio.BrokenResourceError` where the connection has ended."""
        if (failure := self.carrier.failure) is not None:
            raise trio.BrokenResourceError(str(failure)) from failure

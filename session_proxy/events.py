"""What happens while a proxy runs, as values.

Drivers hand these to a synchronous ``notify``; the observability package turns them into log lines and
metrics. Nothing here holds a secret or a payload.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from awg_obfs.events import SessionEvent
from session_proxy.target import Target


@attrs.frozen
class Listening:
    """The front door accepts connections on *address* (``HOST:PORT``)."""

    address: str


@attrs.frozen
class ConnectionOpened:
    """A client was accepted; *id* is unique in this process."""

    id: int
    client: str


@attrs.frozen(kw_only=True)
class ConnectionClosed:
    """A client's connection ended; the one line per connection is made of this.

    *outcome* is ``ok``, a `DialError.reason`, or ``auth-failed``, ``protocol-error``, ``bad-answer``,
    ``udp-unsupported``, ``handshake-timeout``, ``idle-timeout``, ``reset``, ``limit``, ``drained``.
    Byte counts are payload: *sent* by the client, and *received* by it.
    """

    id: int
    client: str
    protocol: str
    target: Target | None
    rule: str
    upstream: str
    sent: int
    received: int
    duration: float
    connect_duration: float | None
    outcome: str
    detail: str = ""


@attrs.frozen
class UdpAssociationClosed:
    """A UDP association ended, after that many datagrams each way."""

    id: int
    client: str
    sent: int
    received: int
    dropped: int
    duration: float


@attrs.frozen
class UpstreamUp:
    """An upstream became usable through *via* (an instance id, an address)."""

    upstream: str
    via: str
    setup: float


@attrs.frozen
class UpstreamDown:
    """An upstream, or one of its links, broke; the next attempt is *retry_in* seconds away, if any."""

    upstream: str
    via: str
    reason: str
    retry_in: float | None


@attrs.frozen
class LinksChanged:
    """An upstream now holds *links* connections (striped sessions)."""

    upstream: str
    links: int


@attrs.frozen
class Notice:
    """Something a person should read once: a customer message, a new host key, a warning."""

    upstream: str
    message: str
    level: str = "info"


@attrs.frozen
class AwgHappened:
    """What a library event says of the AmneziaWG session *link*: an upstream, or a server's peer."""

    link: str
    event: SessionEvent


Event = (
    Listening
    | ConnectionOpened
    | ConnectionClosed
    | UdpAssociationClosed
    | UpstreamUp
    | UpstreamDown
    | LinksChanged
    | Notice
    | AwgHappened
)

Notify = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Be a `Notify` that does nothing."""

"""What a device tells of itself, for logs, metrics and those who act on it. Never keys, never content."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from awg_obfs.protocol.address import Address

if TYPE_CHECKING:
    # Their cryptography takes long to import, for whoever only wants to write events down.
    from awg_obfs.protocol.noise import Role
    from awg_obfs.protocol.peers import Peer


class Rejection(enum.StrEnum):
    """Why a datagram was dropped."""

    TOO_SMALL = "too small"
    UNKNOWN_TYPE = "unknown type"
    BAD_MAC1 = "bad mac1"
    UNDER_LOAD = "under load"
    RATE_LIMITED = "rate limited"
    UNREADABLE = "handshake unreadable"
    UNKNOWN_PEER = "unknown peer"
    OLD_TIMESTAMP = "old timestamp"
    TOO_OFTEN = "initiations too often"
    UNEXPECTED = "answer to nothing"
    UNKNOWN_SESSION = "unknown session"
    EXPIRED_SESSION = "expired session"
    BAD_CONTENT = "content not authentic"
    REPLAYED = "replayed"


class HandshakeFault(enum.StrEnum):
    """Why no handshake came about."""

    NO_ANSWER = "no answer"
    NO_ENDPOINT = "no endpoint"


@attrs.frozen
class HandshakeSent:
    """An initiation left for *peer*; *attempt* counts from 1 since the last handshake that came about."""

    peer: Peer
    attempt: int
    address: Address


@attrs.frozen
class HandshakeAnswered:
    """An initiation of *peer* was accepted and answered. Its `Peer.last_timestamp` is new: keep it."""

    peer: Peer
    address: Address


@attrs.frozen
class HandshakeCompleted:
    """There are new keys, and both sides have them. *role* is ours."""

    peer: Peer
    role: Role
    address: Address


@attrs.frozen
class HandshakeFailed:
    """Nothing more is tried until there is something to send."""

    peer: Peer
    reason: HandshakeFault


@attrs.frozen
class PeerMoved:
    """*peer* was heard from another address, which is used from now on."""

    peer: Peer
    old: Address | None
    new: Address


@attrs.frozen
class SessionExpired:
    """There has been no new handshake for long, so the last keys were forgotten."""

    peer: Peer


@attrs.frozen
class DatagramRejected:
    """A datagram was dropped; *hint* says which parameter or key may be wrong, and is empty if nothing points to one.

    Only the first few in a second are told; `Device.rejections` counts them all.
    """

    source: Address
    size: int
    reason: Rejection
    hint: str = ""


@attrs.frozen
class UnderLoad:
    """So many handshake messages come that their senders have to prove their addresses."""


@attrs.frozen
class CookieSent:
    """A sender was asked to prove its *address*."""

    address: Address


@attrs.frozen
class CookieReceived:
    """*peer* is under load; the next initiation will prove our address."""

    peer: Peer


DeviceEvent = (
    HandshakeSent
    | HandshakeAnswered
    | HandshakeCompleted
    | HandshakeFailed
    | PeerMoved
    | SessionExpired
    | DatagramRejected
    | UnderLoad
    | CookieSent
    | CookieReceived
)


@attrs.frozen
class SendingFailed:
    """Datagrams to *address* were dropped on this machine. The same *reason* is told once in a while."""

    address: Address
    reason: str


@attrs.frozen
class PathTooNarrow:
    """A datagram of *size* bytes does not get to *address* in one piece: such are sent in pieces from now on."""

    address: Address
    size: int


@attrs.frozen
class Rebound:
    """We send from another socket now."""

    old: Address
    new: Address


class NetworkChange(enum.StrEnum):
    """What has become of the way from this machine to a peer."""

    MOVED = "another address"
    RETURNED = "a way again"
    WOKE = "woke up"


@attrs.frozen
class NetworkChanged:
    """This machine has moved, or slept: *peer* is told where we are."""

    peer: Peer
    change: NetworkChange


EndpointEvent = DeviceEvent | SendingFailed | PathTooNarrow | Rebound | NetworkChanged
"""What an endpoint tells: of its device, and of its socket."""


@attrs.frozen
class SessionUp:
    """Streams can be opened: with a server (*peer*), or by a client. It took *setup* seconds to get there."""

    peer: Peer
    address: Address
    setup: float


@attrs.frozen
class SessionDown:
    """The streams of this session have ended."""

    peer: Peer
    reason: str


@attrs.frozen
class Reconnecting:
    """A client has lost its session, or hears nothing, and sees to it; *reason* is for people."""

    peer: Peer
    reason: str


@attrs.frozen
class LookUpFailed:
    """A client has not found the address of its server, and tries again; *reason* is for people."""

    peer: Peer
    reason: str


class StreamOutcome(enum.StrEnum):
    """How a connection through a server ended. The first are those of `errors.DialFault`."""

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    RESOLUTION = "resolution"
    NOT_ALLOWED = "not-allowed"
    TIMEOUT = "timeout"
    LIMIT = "limit"
    DOWN = "down"
    OK = "ok"
    RESET = "reset"
    IDLE = "idle-timeout"
    DRAINED = "drained"
    MALFORMED = "protocol-error"


@attrs.frozen(kw_only=True)
class StreamClosed:
    """A connection that *peer* had asked for is over.

    *sent* by the client and *received* by it are bytes of payload. *duration* is in seconds, as is *connect_duration*,
    which is None where the destination was not reached.
    """

    peer: Peer
    host: str
    port: int
    sent: int
    received: int
    duration: float
    connect_duration: float | None
    outcome: StreamOutcome
    detail: str = ""


@attrs.frozen(kw_only=True)
class AssociationClosed:
    """A UDP association of *peer* is over: datagrams it *sent*, *received*, and that were *dropped*; seconds."""

    peer: Peer
    sent: int
    received: int
    dropped: int
    duration: float


SessionEvent = EndpointEvent | SessionUp | SessionDown | Reconnecting | LookUpFailed
"""What there is to tell of a session, at either end, but for what goes through it."""

TunnelEvent = SessionEvent | StreamClosed | AssociationClosed
"""What a tunnel tells, at either end."""

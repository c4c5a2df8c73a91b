"""Everything tunnel_relay raises on purpose.

TunnelRelayError
    SshError
        SshHandshakeError           version exchange or key exchange failed
        HostKeyError                the host's key is unknown, changed, revoked or too short
        KnownHostsError             the file of host keys cannot be read or written
        SshAuthenticationError      the server accepted none of our keys
        SshKeyError                 a key file or agent cannot be used
        SshDisconnectedError        the connection ended; says why
        ChannelRefusedError         the server would not open the channel (RFC 4254, 5.1)
    WebSocketError
        WebSocketRejectedError      the upgrade was answered with an HTTP status
        WebSocketClosedError        the WebSocket ended: code and reason
    RelayError
        RelayProtocolError          the other end of a session breaks its rules
        LinkLostError               the WebSocket is of no use any more
        RequestLostError            a session ended before the response to a request had come
        OutboxFullError             too many requests wait to be sent
        StoreError                  a file in which something is kept cannot be read or written
        TokenUnavailableError       there is no token to show to the relay
        TunnelUnavailableError      there is no way to the agent
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunnel_relay.category import Category


class TunnelRelayError(Exception):
    """Base class: catch it to catch them all. ``str()`` is one line for a person."""


class SshError(TunnelRelayError):
    """Base class of what goes wrong with SSH."""


class SshHandshakeError(SshError):
    """The version exchange or the key exchange failed."""


class HostKeyError(SshError):
    """The host presented a key that we do not accept; the message names the file and line to look at."""


class KnownHostsError(SshError):
    """The file of known host keys cannot be read, or not be added to; nothing is said about the host."""


class SshAuthenticationError(SshError):
    """The server accepted none of our keys."""


class SshKeyError(SshError):
    """A key file, its passphrase or the agent cannot be used."""


class SshDisconnectedError(SshError):
    """The SSH connection ended; the message says why."""


class ChannelOpenFailure(enum.IntEnum):
    """Reason codes of SSH_MSG_CHANNEL_OPEN_FAILURE (RFC 4254, section 5.1)."""

    ADMINISTRATIVELY_PROHIBITED = 1
    CONNECT_FAILED = 2
    UNKNOWN_CHANNEL_TYPE = 3
    RESOURCE_SHORTAGE = 4


class ChannelRefusedError(SshError):
    """The server would not open the channel; *description* is its own text, cleaned for a terminal."""

    def __init__(self, code: int, description: str) -> None:
        self.code = code
        self.description = description
        super().__init__(description or f"channel refused with code {code}")


class WebSocketError(TunnelRelayError):
    """Base class of what goes wrong with a WebSocket."""


class WebSocketRejectedError(WebSocketError):
    """The upgrade request was answered with HTTP status *status*.

    Attributes:
      detail: What the server said, cleaned for a terminal.
      retry_after: After how many seconds to ask again, in the server's word; 0 where it has none.

    """

    def __init__(self, status: int, detail: str = "", retry_after: float = 0.0) -> None:
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        said = f": {detail}" if detail else ""
        super().__init__(f"the server answered the WebSocket upgrade with HTTP status {status}{said}")


class WebSocketClosedError(WebSocketError):
    """The WebSocket ended with close *code* (RFC 6455, section 7.4; 1006 where no close frame came)."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"the WebSocket was closed with code {code}{f': {reason}' if reason else ''}")


class RelayError(TunnelRelayError):
    """Base class of what goes wrong with a relay."""


class RelayProtocolError(RelayError):
    """The other end breaks the rules of the relay's protocol (docs/PROTOCOL.md): do not listen to it any more."""


class LinkLostError(RelayError):
    """The WebSocket to the other end is closed, silent or nonsensical; sessions go on over the next one."""


class RequestLostError(RelayError):
    """The session ended before the response to a request had come; it may have been done. Ask again, with its id."""


class OutboxFullError(RelayError):
    """Too many requests wait to be sent, or too many bytes: this one was not accepted."""


class StoreError(RelayError):
    """A file in which something is kept cannot be read or written; the message names it and says why."""


class TokenUnavailableError(RelayError):
    """There is no token to show to the relay; the message says why, and nothing of the token."""


class TunnelUnavailableError(RelayError):
    """There is no way to the agent now; *category* is the kind of trouble."""

    def __init__(self, reason: str, category: Category) -> None:
        self.category = category
        super().__init__(reason)

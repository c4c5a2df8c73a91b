"""Why a stream that the relay would have led through SSH does not come about, in the words of the protocol."""

from __future__ import annotations

from tunnel_relay.errors import (
    ChannelOpenFailure,
    ChannelRefusedError,
    HostKeyError,
    KnownHostsError,
    SshAuthenticationError,
    SshError,
    SshKeyError,
)
from tunnel_relay.performing import RequestNotDoneError
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.requests import Status
from tunnel_relay.relay_stream import StreamRefusedError, StreamResetError

# What servers write into the description of "connect failed", which RFC 4254, section 5.1 leaves to them:
# OpenSSH the C library's text for the error, in the server's language, which is English as a rule.
_CAUSES: tuple[tuple[tuple[str, ...], Reason], ...] = (
    (("refused",), Reason.REFUSED),
    (("timed out", "timeout"), Reason.TIMED_OUT),
    (("prohibited", "not permitted", "permission denied"), Reason.NOT_ALLOWED),
)

# What the requests' own numbers do not have. Nothing was sent to the target in any of these cases.
_STATUSES = {
    Reason.NOT_ALLOWED: Status.NOT_ALLOWED,
    Reason.NO_SUCH_SERVICE: Status.NO_SUCH_TARGET,
    Reason.UNREACHABLE: Status.UNREACHABLE,
    Reason.REFUSED: Status.REFUSED,
    Reason.TIMED_OUT: Status.TIMED_OUT,
    Reason.LIMIT: Status.BUSY,
}

# What goes wrong at the relay, whose messages name files there.
_OWN_MATTERS: tuple[tuple[type[SshError], str], ...] = (
    (HostKeyError, "its host key is not the one that the relay knows; the relay's log says more"),
    (SshAuthenticationError, "it does not take the relay's key; the relay's log says more"),
    (SshKeyError, "the relay's key cannot be used; the relay's log says more"),
    (KnownHostsError, "the relay's host keys cannot be read or written; the relay's log says more"),
)

# The longest name that there can be, and brackets, and a port.
MAX_TARGET = 270
MAX_PORT = 65535


def read_target(text: str) -> tuple[str, int]:
    """Return host and port of "host:port"; an IPv6 address stands in brackets.

    Raises:
      StreamRefusedError: it is none.

    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    fits = len(text) <= MAX_TARGET and host.isprintable() and not any(map(str.isspace, host))
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= len(str(MAX_PORT)) else 0
    if not (colon and host and fits and 0 < number <= MAX_PORT):
        raise StreamRefusedError(Reason.NO_SUCH_SERVICE, f"{text[:80]!r} is no HOST:PORT")
    return host, number


def refused_channel(exc: ChannelRefusedError) -> StreamRefusedError:
    """Return what it means that an SSH server would not open a channel."""
    told = exc.description or f"code {exc.code}"
    match exc.code:
        case ChannelOpenFailure.ADMINISTRATIVELY_PROHIBITED:
            return StreamRefusedError(
                Reason.NOT_ALLOWED, f"the agent's SSH server forbids forwarding ({told})"
            )
        case ChannelOpenFailure.UNKNOWN_CHANNEL_TYPE:
            return StreamRefusedError(Reason.NOT_ALLOWED, f"the agent's SSH server cannot forward ({told})")
        case ChannelOpenFailure.RESOURCE_SHORTAGE:
            detail = f"the agent's SSH server has no room for another channel ({told})"
            return StreamRefusedError(Reason.LIMIT, detail)
        case _:
            lower = told.lower()
            for texts, reason in _CAUSES:
                if any(text in lower for text in texts):
                    return StreamRefusedError(reason, f"the agent's SSH server could not connect: {told}")
            # A name that is not known, no route, or sshd's "Connection failed" where all addresses have.
            return StreamRefusedError(Reason.UNREACHABLE, f"the agent's SSH server could not connect: {told}")


def no_connection(agent: str, exc: SshError | StreamRefusedError | StreamResetError) -> StreamRefusedError:
    """Return what it means that the relay has no SSH connection: nobody behind *agent* can be reached that way.

    That is never NOT_ALLOWED, which would be said of the target: by another way, it may be reached. Which files the
    relay has is its own business, and its log's.
    """
    why = next((words for kind, words in _OWN_MATTERS if isinstance(exc, kind)), str(exc))
    detail = f"no SSH connection to the agent {agent!r}: {why}"
    limited = isinstance(exc, StreamRefusedError) and exc.reason is Reason.LIMIT
    return StreamRefusedError(Reason.LIMIT if limited else Reason.UNREACHABLE, detail)


def not_done(exc: StreamRefusedError) -> RequestNotDoneError:
    """Return what it means for a request that there is no stream to its target."""
    return RequestNotDoneError(_STATUSES.get(exc.reason, Status.FAILED), exc.detail)

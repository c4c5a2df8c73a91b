"""What happens at a relay, as values: for logs, metrics and the audit log. Nothing here holds a token or a payload."""

from __future__ import annotations

import enum

import attrs

from tunnel_relay.policy.rate import Act
from tunnel_relay.protocol.tokens import Fault


@attrs.frozen(kw_only=True)
class Origin:
    """A connection to the public port.

    Attributes:
      connection: What this relay calls it.
      address: The IP address that it comes from.
      correlation: What it has in common with other lines about the same matter; as a rule, the client has said it.
      user_agent: What the other end calls its program.

    """

    connection: str
    address: str
    correlation: str = ""
    user_agent: str = ""


class Cause(enum.Enum):
    """Why somebody was turned away; the values are what metrics call it."""

    CROWD = "crowd"
    """Too many connections of which nobody knows whose they are, or too many of all."""
    SLOW = "slow"
    """Nobody has said in time who it is."""
    NONSENSE = "nonsense"
    """It is not HTTP, no TLS, or not what our clients say."""
    NO_TOKEN = "no-token"
    MALFORMED = "malformed"
    FORGED = "forged"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET = "not-yet"
    REVOKED = "revoked"
    SCOPE = "scope"
    RATE = "rate"
    LIMIT = "limit"
    DRAINING = "draining"


CAUSES = {
    Fault.MALFORMED: Cause.MALFORMED,
    Fault.FORGED: Cause.FORGED,
    Fault.UNKNOWN_KEY: Cause.FORGED,
    Fault.AUDIENCE: Cause.AUDIENCE,
    Fault.EXPIRED: Cause.EXPIRED,
    Fault.NOT_YET: Cause.NOT_YET,
    Fault.REVOKED: Cause.REVOKED,
}

# Those by which somebody has failed to say who it is.
UNAUTHENTICATED = frozenset({Cause.NO_TOKEN, Cause.SCOPE, *CAUSES.values()})


@attrs.frozen(kw_only=True)
class TurnedAway:
    """Somebody did not get a link: *status* is the HTTP status, 0 where there was no answer."""

    origin: Origin
    cause: Cause
    status: int
    detail: str
    user: str = ""


@attrs.frozen(kw_only=True)
class LinkOpened:
    """Somebody is linked to the relay; *agent* is the agent's name, None for a client."""

    origin: Origin
    user: str
    agent: str | None
    tier: str = ""


class Ending(enum.Enum):
    """How a link came to its end."""

    LEFT = "left"
    LOST = "lost"
    TOKEN = "token"
    """Its token has ceased to hold."""
    BROKEN = "broken"
    """Its other end broke the rules of the protocol."""


@attrs.frozen(kw_only=True)
class LinkClosed:
    """Somebody no longer is, after *duration* seconds; *cause* says what is wrong with its token, if anything is."""

    origin: Origin
    user: str
    agent: str | None
    ending: Ending
    detail: str
    duration: float
    cause: Cause | None = None


@attrs.frozen(kw_only=True)
class TokenRefreshed:
    """A link goes on with a fresh token."""

    origin: Origin
    user: str


@attrs.frozen(kw_only=True)
class RateExceeded:
    """A user asked for more than may be asked for, so many *times*: it waits for so long, or was *refused*."""

    origin: Origin
    user: str
    act: Act
    wait: float
    refused: bool
    times: int = 1


@attrs.frozen(kw_only=True)
class LimitReached:
    """A user would have had more at a time than the tier allows, so many *times*."""

    origin: Origin
    user: str
    detail: str
    times: int = 1


@attrs.frozen(kw_only=True)
class SessionRefused:
    """An end of a session would not have it, or not go on with it: an old fence, an overrun window."""

    origin: Origin
    user: str
    detail: str


# Of what the relay does by itself.
OURSELVES = Origin(connection="", address="")


@attrs.frozen(kw_only=True)
class LoggedIn:
    """The relay itself has logged in to the SSH server of a user's agent, or tried to.

    Attributes:
      agent: The agent's name.
      login: As whom; "" where that is not known.
      ok: Whether it came about.
      host_key: The fingerprint of the server's host key, where it did,
      recorded: and whether that was the first time.
      detail: Why it did not.

    """

    user: str
    agent: str
    login: str
    ok: bool
    host_key: str = ""
    recorded: bool = False
    detail: str = ""
    origin: Origin = OURSELVES


class Kind(enum.Enum):
    """What is answered; the values are what metrics call it."""

    OPEN = "open"
    REQUEST = "request"


@attrs.frozen(kw_only=True)
class Answered:
    """A stream was accepted or refused, or a request done or not, *seconds* after it was asked for.

    *number* is the stream's, or the request's, in its session.
    """

    origin: Origin
    user: str
    kind: Kind
    ok: bool
    seconds: float
    number: int = 0


RelayEvent = (
    TurnedAway
    | LinkOpened
    | LinkClosed
    | TokenRefreshed
    | RateExceeded
    | LimitReached
    | SessionRefused
    | LoggedIn
    | Answered
)

"""One of each of the things that happen at a relay server."""

from __future__ import annotations

from tunnel_relay.policy.rate import Act
from tunnel_relay.server.events import (
    Answered,
    Cause,
    Ending,
    Kind,
    LimitReached,
    LinkClosed,
    LinkOpened,
    LoggedIn,
    Origin,
    RateExceeded,
    RelayEvent,
    SessionRefused,
    TokenRefreshed,
    TurnedAway,
)

ORIGIN = Origin(connection="c1", address="203.0.113.9", correlation="r1", user_agent="test/1")


def turned_away(cause: Cause, status: int = 0, user: str = "") -> TurnedAway:
    """Return that somebody was turned away."""
    return TurnedAway(origin=ORIGIN, cause=cause, status=status, detail=f"it is {cause.value}", user=user)


def closed(ending: Ending, cause: Cause | None = None) -> LinkClosed:
    """Return that a client's link ended."""
    detail = f"it {ending.value}"
    return LinkClosed(
        origin=ORIGIN, user="alice", agent=None, ending=ending, detail=detail, duration=1.5, cause=cause
    )


def rate_exceeded(act: Act = Act.OPEN, *, refused: bool = False) -> RateExceeded:
    """Return that alice asks too often."""
    return RateExceeded(origin=ORIGIN, user="alice", act=act, wait=0.5, refused=refused)


OPENED = LinkOpened(origin=ORIGIN, user="alice", agent="nas", tier="free")
REFRESHED = TokenRefreshed(origin=ORIGIN, user="alice")
LIMIT = LimitReached(origin=ORIGIN, user="alice", detail="too many")
SESSION_REFUSED = SessionRefused(origin=ORIGIN, user="alice", detail="old")
ANSWERED = Answered(origin=ORIGIN, user="alice", kind=Kind.OPEN, ok=True, seconds=0.25)

LOGGED_IN = LoggedIn(user="alice", agent="nas", login="me", ok=True, host_key="SHA256:abc", recorded=True)
NOT_LOGGED_IN = LoggedIn(user="alice", agent="nas", login="me", ok=False, detail="another host key")

EVENTS: tuple[RelayEvent, ...] = (
    turned_away(Cause.EXPIRED, 401),
    turned_away(Cause.RATE, 429, "alice"),
    turned_away(Cause.NONSENSE, 400),
    turned_away(Cause.SLOW),
    OPENED,
    closed(Ending.LEFT),
    closed(Ending.LOST),
    closed(Ending.BROKEN),
    closed(Ending.TOKEN, Cause.REVOKED),
    REFRESHED,
    rate_exceeded(),
    rate_exceeded(Act.REQUEST, refused=True),
    LIMIT,
    SESSION_REFUSED,
    LOGGED_IN,
    NOT_LOGGED_IN,
    ANSWERED,
    Answered(origin=ORIGIN, user="alice", kind=Kind.REQUEST, ok=False, seconds=0.5),
)

"""What happens at a relay server, as log lines with the fields that everything about a relay has.

``message`` is for people; ``userId``, ``connectionId`` and ``correlationId`` say whose matter it is, and whatever else
there is to know stands in ``context``.
"""

from __future__ import annotations

import logging
import math
from typing import assert_never

import attrs
import trio

from session_proxy.observability.logging import Log, quote
from session_proxy.observability.quiet import Quiet
from tunnel_relay.policy.rate import address_key
from tunnel_relay.server.events import (
    Answered,
    Ending,
    LimitReached,
    LinkClosed,
    LinkOpened,
    LoggedIn,
    RateExceeded,
    RelayEvent,
    SessionRefused,
    TokenRefreshed,
    TurnedAway,
)

# Seconds in which the like of who was turned away is only counted.
QUIET = 1.0


class Context(dict[str, object]):
    """An object in JSON, and words in a line of text."""

    def __str__(self) -> str:
        return " ".join(f"{key}={quote(value)}" for key, value in self.items())


@attrs.frozen
class RelayLine:
    """What a line is to say of an event."""

    level: str
    event: str
    message: str
    user: str
    context: Context


@attrs.frozen(eq=False)
class RelayLog:
    """Writes what happens at a relay server to a log; of those who are turned away from one address, one in a while."""

    log: Log
    _quiet: Quiet[RelayEvent] = attrs.field(factory=lambda: Quiet[RelayEvent](QUIET), init=False)

    def __call__(self, event: RelayEvent) -> None:
        """Write the line that *event* deserves, if the level lets it through."""
        if isinstance(event, LoggedIn):
            # Whoever speaks SSH writes more of it.
            return
        if isinstance(event, Answered) and not self.log.is_enabled_for(logging.DEBUG):
            # There are dozens of them a second for each user.
            return
        more: int | None = 0
        if isinstance(event, TurnedAway):
            kind = address_key(event.origin.address), event.cause, event.user
            more = self._quiet.passes(kind, event, trio.current_time())
        if more is not None:
            self._write(event, more)

    def flush(self, *, end: bool = False) -> None:
        """Write of what was only counted, and is not like anything that still comes; at the *end*, of all of it."""
        for event, more in self._quiet.overdue(math.inf if end else trio.current_time()):
            self._write(event, more)

    def _write(self, event: RelayEvent, more: int) -> None:
        line, origin = relay_line(event), event.origin
        line.context.update({"repeated": more} if more else {})
        self.log.log(
            logging.getLevelNamesMapping()[line.level.upper()],
            line.event,
            message=line.message,
            userId=line.user,
            connectionId=origin.connection,
            correlationId=origin.correlation,
            context=Context(address=origin.address, **line.context),
        )


def relay_line(event: RelayEvent) -> RelayLine:
    """Return what to say of *event*."""
    match event:
        case TurnedAway(cause=cause, status=status, detail=detail, user=user):
            context = Context(cause=cause.value, status=status)
            return RelayLine("warning", "turned away", detail, user, context)
        case LinkOpened(user=user, agent=agent, tier=tier):
            return RelayLine(
                "info", "link opened", f"{_who(agent)} is linked", user, Context(agent=agent or "", tier=tier)
            )
        case LinkClosed(user=user, agent=agent, ending=ending, detail=detail):
            level = "info" if ending is Ending.LEFT else "warning"
            context = Context(agent=agent or "", ending=ending.value, duration=round(event.duration, 3))
            return RelayLine(level, "link closed", detail, user, context)
        case TokenRefreshed(user=user):
            return RelayLine("debug", "token refreshed", "the link goes on", user, Context())
        case RateExceeded(user=user, act=act, wait=wait, refused=refused, times=times):
            message = "was refused" if refused else "has to wait"
            context = Context(act=act.value, wait=round(wait, 3), times=times)
            return RelayLine("warning", "rate exceeded", message, user, context)
        case LimitReached(user=user, detail=detail, times=times):
            return RelayLine("warning", "limit reached", detail, user, Context(times=times))
        case SessionRefused(user=user, detail=detail):
            return RelayLine("warning", "session refused", detail, user, Context())
        case LoggedIn(user=user, agent=agent, ok=ok, detail=detail):
            return RelayLine(
                "debug", "login", detail or "the relay has logged in", user, Context(agent=agent, ok=ok)
            )
        case Answered(user=user, kind=kind, ok=ok, seconds=seconds):
            message = "done" if ok else "refused"
            return RelayLine("debug", kind.value, message, user, Context(seconds=round(seconds, 6)))
        case _:
            assert_never(event)


def _who(agent: str | None) -> str:
    return "a client" if agent is None else f"the agent {agent!r}"

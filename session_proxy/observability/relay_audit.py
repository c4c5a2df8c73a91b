"""What happens at a relay server, as entries of its audit log.

Whoever is turned away costs us an entry. So that a flood does not fill the disk, the like of what was entered just now
is only counted, and the next entry of the kind tells how many there were; where none comes, the last of them does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import attrs

from session_proxy.observability.quiet import Quiet
from tunnel_relay.policy.rate import address_key
from tunnel_relay.protocol.audit_chain import Action, AuditEntry, Result
from tunnel_relay.server.events import (
    UNAUTHENTICATED,
    Answered,
    Cause,
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

# Seconds in which the like of an entry is only counted.
QUIET = 10.0

# The details that tell one kind from another.
_KINDS = ("cause", "act", "refused")

_LIMITS = frozenset({Cause.RATE, Cause.LIMIT, Cause.CROWD})


@attrs.define(eq=False)
class RelayAudit:
    """Enters what happens into an audit log.

    Attributes:
      add: Takes the entries.
      unix_time: The time of day.

    """

    add: Callable[[AuditEntry], None]
    unix_time: Callable[[], float]
    _quiet: Quiet[AuditEntry] = attrs.field(factory=lambda: Quiet[AuditEntry](QUIET), init=False)

    def __call__(self, event: RelayEvent) -> None:
        """Enter *event*, where it is of that sort."""
        if isinstance(event, Answered):
            # A busy user opens dozens of streams a second.
            return
        now = self.unix_time()
        for entry in entries_of(event, now):
            if entry.result is Result.SUCCESS or isinstance(event, LinkClosed):
                self.add(entry)
            else:
                self._add_once(entry)

    def configured(self, *, digest: str, resource: str, **details: str | float | bool | None) -> None:
        """Enter that the server runs by the file *resource*, whose SHA-256 is *digest*."""
        self.add(
            AuditEntry(
                time=self.unix_time(),
                action=Action.CONFIGURE,
                result=Result.SUCCESS,
                resource=resource,
                details={"sha256": digest, **details},
            )
        )

    def flush(self, *, end: bool = False) -> None:
        """Enter what was only counted, and is not like anything that still comes; at the *end*, all of it."""
        for entry, more in self._quiet.overdue(math.inf if end else self.unix_time()):
            self._add(entry, more)

    def _add_once(self, entry: AuditEntry) -> None:
        who = entry.user or address_key(entry.address)
        key = (
            who,
            entry.action.value,
            entry.resource,
            *(str(entry.details.get(detail, "")) for detail in _KINDS),
        )
        more = self._quiet.passes(key, entry, entry.time)
        if more is not None:
            self._add(entry, more)

    def _add(self, entry: AuditEntry, more: int) -> None:
        self.add(attrs.evolve(entry, details={**entry.details, "repeated": more}) if more else entry)


def entries_of(event: RelayEvent, now: float) -> Iterator[AuditEntry]:
    """Yield what *event* is in an audit log; nothing where it is nobody's business there."""
    origin = event.origin
    about = attrs.evolve(
        _NOTHING,
        time=now,
        address=origin.address,
        correlation_id=origin.correlation or origin.connection,
        user_agent=origin.user_agent,
        user=event.user,
    )
    failed = attrs.evolve(about, result=Result.FAILURE)
    match event:
        case TurnedAway(cause=cause, status=status, detail=detail):
            yield attrs.evolve(
                failed,
                action=_action_of(cause),
                details={"cause": cause.value, "status": status, "detail": detail},
            )
        case LinkOpened(agent=agent, tier=tier):
            resource = "" if agent is None else agent
            yield attrs.evolve(about, action=Action.AUTHENTICATE, resource=resource, details={"tier": tier})
            yield attrs.evolve(
                about,
                action=Action.CONNECT if agent is None else Action.REGISTER,
                resource=resource,
                details={"connection": origin.connection},
            )
        case LinkClosed(agent=agent, ending=ending, detail=detail, duration=duration, cause=cause):
            if ending is Ending.BROKEN:
                yield attrs.evolve(failed, action=Action.ERROR, details={"detail": detail})
            if cause is not None:
                yield attrs.evolve(
                    failed, action=Action.AUTHENTICATE, details={"cause": cause.value, "detail": detail}
                )
            yield attrs.evolve(
                about,
                action=Action.DISCONNECT,
                resource="" if agent is None else agent,
                details={
                    "connection": origin.connection,
                    "ending": ending.value,
                    "detail": detail,
                    "duration": round(duration, 3),
                },
            )
        case TokenRefreshed():
            yield attrs.evolve(about, action=Action.AUTHENTICATE, details={"refresh": True})
        case RateExceeded(act=act, refused=refused, times=times):
            details = {"act": act.value, "refused": refused, "times": times}
            yield attrs.evolve(failed, action=Action.RATE_LIMIT, details=details)
        case LimitReached(detail=detail, times=times):
            details = {"detail": detail, "times": times}
            yield attrs.evolve(failed, action=Action.RATE_LIMIT, details=details)
        case SessionRefused(detail=detail):
            yield attrs.evolve(failed, action=Action.ERROR, details={"detail": detail})
        case LoggedIn(agent=agent, login=login, ok=True, host_key=key, recorded=recorded):
            details = {"login": login, "host_key": key, "recorded": recorded}
            yield attrs.evolve(about, action=Action.LOGIN, resource=agent, details=details)
        case LoggedIn(agent=agent, login=login, detail=detail):
            details = {"login": login, "detail": detail}
            yield attrs.evolve(failed, action=Action.LOGIN, resource=agent, details=details)
        case Answered():
            return


_NOTHING = AuditEntry(time=0.0, action=Action.ERROR, result=Result.SUCCESS)


def _action_of(cause: Cause) -> Action:
    if cause in UNAUTHENTICATED:
        return Action.AUTHENTICATE
    if cause in _LIMITS:
        return Action.RATE_LIMIT
    return Action.CONNECT if cause is Cause.DRAINING else Action.ERROR

"""What of a relay's events is audited."""

from __future__ import annotations

import attrs
import pytest

from session_proxy.observability.relay_audit import QUIET, RelayAudit, entries_of
from tests.support.relay_events import (
    ANSWERED,
    EVENTS,
    LIMIT,
    LOGGED_IN,
    NOT_LOGGED_IN,
    OPENED,
    ORIGIN,
    REFRESHED,
    SESSION_REFUSED,
    closed,
    rate_exceeded,
    turned_away,
)
from tunnel_relay.protocol.audit_chain import Action, AuditEntry, Head, Result, append
from tunnel_relay.server.events import Cause, Ending, LinkOpened, RelayEvent, TurnedAway

NOW = 1_800_000_000.0
GOOD, BAD = Result.SUCCESS, Result.FAILURE


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (turned_away(Cause.FORGED, 401), [(Action.AUTHENTICATE, BAD)]),
        (turned_away(Cause.RATE, 429), [(Action.RATE_LIMIT, BAD)]),
        (turned_away(Cause.CROWD), [(Action.RATE_LIMIT, BAD)]),
        (turned_away(Cause.SLOW), [(Action.ERROR, BAD)]),
        (turned_away(Cause.DRAINING, 503), [(Action.CONNECT, BAD)]),
        (OPENED, [(Action.AUTHENTICATE, GOOD), (Action.REGISTER, GOOD)]),
        (
            LinkOpened(origin=ORIGIN, user="alice", agent=None),
            [(Action.AUTHENTICATE, GOOD), (Action.CONNECT, GOOD)],
        ),
        (closed(Ending.LEFT), [(Action.DISCONNECT, GOOD)]),
        (closed(Ending.BROKEN), [(Action.ERROR, BAD), (Action.DISCONNECT, GOOD)]),
        (closed(Ending.TOKEN, Cause.REVOKED), [(Action.AUTHENTICATE, BAD), (Action.DISCONNECT, GOOD)]),
        (REFRESHED, [(Action.AUTHENTICATE, GOOD)]),
        (rate_exceeded(), [(Action.RATE_LIMIT, BAD)]),
        (LIMIT, [(Action.RATE_LIMIT, BAD)]),
        (SESSION_REFUSED, [(Action.ERROR, BAD)]),
        (ANSWERED, []),
    ],
)
def test_what_is_entered(event: RelayEvent, expected: list[tuple[Action, Result]]) -> None:
    entries = list(entries_of(event, NOW))
    assert [(entry.action, entry.result) for entry in entries] == expected
    for entry in entries:
        assert (entry.time, entry.address, entry.correlation_id) == (NOW, "203.0.113.9", "r1")
        assert (entry.user, entry.user_agent) == (event.user, "test/1")


def test_logins_of_the_relay_itself_are_entered() -> None:
    [done] = entries_of(LOGGED_IN, NOW)
    assert (done.action, done.result, done.user, done.resource) == (Action.LOGIN, GOOD, "alice", "nas")
    assert done.details == {"login": "me", "host_key": "SHA256:abc", "recorded": True}
    [failed] = entries_of(NOT_LOGGED_IN, NOW)
    assert (failed.action, failed.result, failed.user, failed.resource) == (Action.LOGIN, BAD, "alice", "nas")
    assert failed.details == {"login": "me", "detail": "another host key"}


def test_failed_logins_are_counted_for_each_agent() -> None:
    log = Log()
    audit = log.audit()
    for _ in range(3):
        audit(NOT_LOGGED_IN)
        audit(attrs.evolve(NOT_LOGGED_IN, agent="pi"))
        audit(LOGGED_IN)
    assert [entry.resource for entry in log.entries if entry.result is BAD] == ["nas", "pi"]
    assert len(log.entries) == 5


def test_all_can_be_written() -> None:
    for event in EVENTS:
        for entry in entries_of(event, NOW):
            append(entry, Head())


@attrs.define(eq=False)
class Log:
    """What was entered, by a clock that is set."""

    now: float = NOW
    entries: list[AuditEntry] = attrs.field(factory=list[AuditEntry])

    def audit(self) -> RelayAudit:
        return RelayAudit(self.entries.append, lambda: self.now)


def test_a_flood_is_counted() -> None:
    log = Log()
    audit = log.audit()
    for _ in range(1000):
        audit(turned_away(Cause.FORGED, 401))
    elsewhere = attrs.evolve(ORIGIN, address="198.51.100.1")
    audit(TurnedAway(origin=elsewhere, cause=Cause.FORGED, status=401, detail="forged"))
    assert [entry.address for entry in log.entries] == ["203.0.113.9", "198.51.100.1"]
    audit(rate_exceeded())
    audit(rate_exceeded(refused=True))
    assert [entry.details["refused"] for entry in log.entries[2:]] == [False, True]
    log.now += QUIET
    audit(turned_away(Cause.FORGED, 401))
    assert log.entries[-1].details["repeated"] == 999
    log.now += QUIET
    audit(turned_away(Cause.FORGED, 401))
    assert "repeated" not in log.entries[-1].details


def test_what_was_counted_is_entered_though_no_more_comes() -> None:
    log = Log()
    audit = log.audit()
    for _ in range(10):
        audit(turned_away(Cause.FORGED, 401))
    audit.flush()
    assert len(log.entries) == 1
    log.now += QUIET
    audit.flush()
    audit.flush()
    assert [entry.details.get("repeated") for entry in log.entries] == [None, 8]
    for _ in range(2):
        audit(turned_away(Cause.FORGED, 401))
    audit.flush(end=True)
    assert [entry.details.get("repeated") for entry in log.entries] == [None, 8, 1]


def test_addresses_of_one_network_are_one() -> None:
    log = Log()
    audit = log.audit()
    for number in range(1, 100):
        origin = attrs.evolve(ORIGIN, address=f"2001:db8::{number:x}")
        audit(TurnedAway(origin=origin, cause=Cause.FORGED, status=401, detail="forged"))
    assert [entry.address for entry in log.entries] == ["2001:db8::1"]


def test_success_is_never_passed_over() -> None:
    log = Log()
    audit = log.audit()
    for _ in range(3):
        audit(ANSWERED)
        audit(OPENED)
        audit(closed(Ending.TOKEN, Cause.EXPIRED))
    assert len(log.entries) == 12


def test_a_configuration() -> None:
    log = Log()
    log.audit().configured(digest="abc", resource="/etc/relay.toml", reload=False)
    [entry] = log.entries
    assert (entry.action, entry.result, entry.resource) == (Action.CONFIGURE, GOOD, "/etc/relay.toml")
    assert entry.details == {"sha256": "abc", "reload": False}

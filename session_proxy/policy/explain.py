"""Why a destination goes where it goes: the rules in file order, and why each did or did not match.

This is the plain scan that `session_proxy.policy.route_table` avoids; both give the same decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from session_proxy.policy.rules import (
    DIRECT,
    REJECT,
    Address,
    AnyMatch,
    CidrMatch,
    Decision,
    GlobMatch,
    Match,
    NameMatch,
    Rule,
    matches,
)
from session_proxy.target import Target

# Reasons that are given for one rule; a list of a thousand matches would bury the others.
MAX_REASONS = 3


@attrs.frozen
class Considered:
    """One rule that was looked at, whether it *matched*, and *why*."""

    rule: str
    matches: tuple[str, ...]
    ports: str
    upstreams: tuple[str, ...]
    matched: bool
    why: str


@attrs.frozen
class Resolution:
    """*where* the target's name will be looked up when *upstream* carries the connection."""

    upstream: str
    where: str


@attrs.frozen(kw_only=True)
class Explanation:
    """Where *target* goes, after which rules were *considered*; *addresses* are what it resolves to here."""

    target: Target
    addresses: tuple[str, ...]
    considered: tuple[Considered, ...]
    not_considered: int
    decision: Decision
    resolution: tuple[Resolution, ...]

    @property
    def outcome(self) -> Literal["rule", "default", "reject"]:
        """Whether a rule decided, the default did, or the target is refused by either."""
        if self.decision.rejected:
            return "reject"
        return "default" if self.decision.rule == "default" else "rule"


def explain(
    rules: Sequence[Rule], default: str, target: Target, addresses: Sequence[Address] = ()
) -> Explanation:
    """Return which of *rules* decides about *target*, and why the ones before it do not.

    *addresses* are what a name resolves to on this machine; only ``resolve = "local"`` rules look at them.
    """
    considered: list[Considered] = []
    decision = Decision("default", (default,))
    for index, rule in enumerate(rules):
        name = f"routes[{index}]"
        matched, why = _judge(rule, target, addresses)
        texts = tuple(str(match) for match in rule.match)
        considered.append(Considered(name, texts, str(rule.ports or "all"), rule.upstream, matched, why))
        if matched:
            decision = Decision(name, rule.upstream)
            break
    return Explanation(
        target=target,
        addresses=tuple(str(address) for address in addresses),
        considered=tuple(considered),
        not_considered=len(rules) - len(considered),
        decision=decision,
        resolution=tuple(Resolution(upstream, _where(upstream, target)) for upstream in decision.upstreams),
    )


def _judge(rule: Rule, target: Target, addresses: Sequence[Address]) -> tuple[bool, str]:
    known = addresses if rule.resolve == "local" else ()
    taking = next((match for match in rule.match if matches(match, target, known)), None)
    closed = rule.ports is not None and not rule.ports.contains(target.port)
    port = f"port {target.port} is not among {rule.ports}"
    if taking is not None:
        why = _why(taking, target, known)
        return not closed, f"{why}, but {port}" if closed else why
    if closed and rule.resolve == "local":
        # Nobody looks a name up for a rule that is not for its port, so no more can be said.
        return False, port
    reasons = [_why_not(match, rule, target, addresses) for match in rule.match[:MAX_REASONS]]
    more = len(rule.match) - len(reasons)
    return False, "; ".join([*reasons, *([f"nor do {more} more"] if more else [])])


def _why(match: Match, target: Target, addresses: Sequence[Address]) -> str:
    match match:
        case AnyMatch():
            return "* takes everything"
        case NameMatch():
            return f"it is {match}"
        case GlobMatch(suffix):
            return f"{target.host} is below {suffix}"
        case CidrMatch() if target.address is not None:
            return f"{match} holds {target.host}"
        case CidrMatch():
            inside = next(address for address in addresses if matches(match, target, [address]))
            return f"{match} holds {inside}, to which {target.host} resolves here"


def _why_not(match: Match, rule: Rule, target: Target, addresses: Sequence[Address]) -> str:
    match match:
        case CidrMatch() if target.address is not None:
            return f"{match} does not hold {target.host}"
        case CidrMatch() if rule.resolve == "remote":
            return f'{match} takes addresses; names only with resolve = "local"'
        case CidrMatch() if not addresses:
            return f"{match} takes addresses, and {target.host} has none here"
        case CidrMatch():
            return f"{match} holds none of {', '.join(map(str, addresses))}"
        case GlobMatch(suffix) if target.host == suffix:
            return f'{match} takes names below {suffix}, not {suffix} itself: list "{suffix}" too'
        case GlobMatch(suffix) if target.address is not None:
            return f"{match} takes names, not addresses"
        case _:
            return f"{match} does not take {target.host}"


def _where(upstream: str, target: Target) -> str:
    if upstream == REJECT:
        return "nowhere: the connection is refused"
    if target.address is not None:
        return "nowhere: it is an address"
    return "on this machine" if upstream == DIRECT else f"at the far end of {upstream}"

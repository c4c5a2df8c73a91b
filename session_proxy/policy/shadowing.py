"""Rules that can never decide, because one earlier rule alone takes everything that they match."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

import attrs

from session_proxy.policy.ports import ALL_PORTS
from session_proxy.policy.rules import AnyMatch, CidrMatch, GlobMatch, Match, NameMatch, Network, Rule


@attrs.frozen
class Shadow:
    """The rule at *index* is hidden by the one at *by*."""

    index: int
    by: int


@attrs.frozen
class _Reach:
    """What a rule matches, in a form that can be compared: adjacent networks are merged."""

    index: int
    rule: Rule
    networks: frozenset[Network]

    @property
    def keys(self) -> Iterator[Match]:
        """The matches under which later rules find this one."""
        yield from map(CidrMatch, self.networks)
        yield from (match for match in self.rule.match if not isinstance(match, CidrMatch))

    def covers(self, other: Rule) -> bool:
        """Tell whether this rule takes everything that *other* does."""
        if not (self.rule.ports or ALL_PORTS).covers(other.ports or ALL_PORTS):
            return False
        # A local rule also takes names, by what they resolve to; only one like it, or "*", can hide that.
        if other.resolve == "local" and self.rule.resolve != "local" and any(other.networks()):
            return AnyMatch() in self.rule.match
        own = {*self.keys}
        return all(any(wider in own for wider in _wider(match)) for match in other.match)


def find_shadows(rules: Sequence[Rule]) -> list[Shadow]:
    """Return the rules that an earlier one hides, each with the first that does.

    Rules that match nothing are passed over: they stand for ones that could not be read.
    """
    shadows: list[Shadow] = []
    by_key: dict[Match, list[_Reach]] = {}
    for index, rule in enumerate(rules):
        if not rule.match:
            continue
        # Whatever hides this rule takes its first match, so only such rules need a closer look.
        candidates = (reach for wider in _wider(rule.match[0]) for reach in by_key.get(wider, ()))
        hiding = [reach.index for reach in candidates if reach.covers(rule)]
        if hiding:
            shadows.append(Shadow(index, min(hiding)))
            continue
        reach = _Reach(index, rule, frozenset(_merged(rule)))
        for key in reach.keys:
            by_key.setdefault(key, []).append(reach)
    return shadows


def _merged(rule: Rule) -> Iterator[Network]:
    networks = list(rule.networks())
    yield from ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv4Network))
    yield from ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv6Network))


def _wider(match: Match) -> Iterator[Match]:
    """Yield *match* and every single match that takes all of it."""
    yield AnyMatch()
    match match:
        case AnyMatch():
            return
        case CidrMatch(network):
            for length in range(network.prefixlen + 1):
                yield CidrMatch(network.supernet(new_prefix=length))
        case NameMatch(name):
            yield match
            yield from _globs_above(name)
        case GlobMatch(suffix):
            yield match
            yield from _globs_above(suffix)


def _globs_above(name: str) -> Iterator[GlobMatch]:
    while "." in name:
        name = name.partition(".")[2]
        yield GlobMatch(name)

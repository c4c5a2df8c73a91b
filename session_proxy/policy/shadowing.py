"""Rules that can never decide, because one earlier rule alone takes everything that they match."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Self

import attrs

from session_proxy.policy.ports import ALL_PORTS
from session_proxy.policy.rules import AnyMatch, CidrMatch, GlobMatch, Match, NameMatch, Network, Rule

# What a match is found by: its kind or IP version, then a name, or a prefix length and as many bits.
Key = tuple[str | int, ...]

ANY: Key = ("*",)


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
    keys: frozenset[Key]

    @classmethod
    def of(cls, index: int, rule: Rule) -> Self:
        others = (match for match in rule.match if not isinstance(match, CidrMatch))
        return cls(index, rule, frozenset(map(_key, [*map(CidrMatch, _merged(rule)), *others])))

    def covers(self, other: Rule, lengths: set[tuple[int, int]]) -> bool:
        """Tell whether this rule takes everything that *other* does."""
        if not (self.rule.ports or ALL_PORTS).covers(other.ports or ALL_PORTS):
            return False
        # A local rule also takes names, by what they resolve to; only one like it, or "*", can hide that.
        if other.resolve == "local" and self.rule.resolve != "local" and any(other.networks()):
            return ANY in self.keys
        return all(any(wider in self.keys for wider in _wider(match, lengths)) for match in other.match)


def find_shadows(rules: Sequence[Rule]) -> list[Shadow]:
    """Return the rules that an earlier one hides, each with the first that does.

    Rules that match nothing are passed over: they stand for ones that could not be read.
    """
    shadows: list[Shadow] = []
    by_key: dict[Key, list[_Reach]] = {}
    # The IP versions and prefix lengths that occur: others need not be looked for.
    lengths: set[tuple[int, int]] = set()
    for index, rule in enumerate(rules):
        if not rule.match:
            continue
        # Whatever hides this rule takes its first match, so only such rules need a closer look.
        candidates = (reach for wider in _wider(rule.match[0], lengths) for reach in by_key.get(wider, ()))
        hiding = [reach.index for reach in candidates if reach.covers(rule, lengths)]
        if hiding:
            shadows.append(Shadow(index, min(hiding)))
            continue
        reach = _Reach.of(index, rule)
        for key in reach.keys:
            by_key.setdefault(key, []).append(reach)
        lengths |= {(network.version, network.prefixlen) for network in _merged(rule)}
    return shadows


def _merged(rule: Rule) -> Iterator[Network]:
    networks = list(rule.networks())
    yield from ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv4Network))
    yield from ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv6Network))


def _key(match: Match) -> Key:
    match match:
        case AnyMatch():
            return ANY
        case CidrMatch(network):
            return _network_key(network, network.prefixlen)
        case NameMatch(name):
            return ("name", name)
        case GlobMatch(suffix):
            return ("glob", suffix)


def _network_key(network: Network, length: int) -> Key:
    return (network.version, length, int(network.network_address) >> (network.max_prefixlen - length))


def _wider(match: Match, lengths: set[tuple[int, int]]) -> Iterator[Key]:
    """Yield the keys of *match* and of every single match that takes all of it."""
    yield ANY
    match match:
        case AnyMatch():
            return
        case CidrMatch(network):
            for version, length in lengths:
                if version == network.version and length <= network.prefixlen:
                    yield _network_key(network, length)
        case NameMatch(name):
            yield ("name", name)
            yield from _globs_above(name)
        case GlobMatch(suffix):
            yield ("glob", suffix)
            yield from _globs_above(suffix)


def _globs_above(name: str) -> Iterator[Key]:
    while "." in name:
        name = name.partition(".")[2]
        yield ("glob", name)

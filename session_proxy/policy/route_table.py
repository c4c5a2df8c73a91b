"""Which rule a destination meets first, found without looking at every rule.

Theory: a rule is taken apart into its matches, and every match goes into the index of its kind: names and
suffixes into dictionaries, networks into one dictionary per prefix length. What a key maps to is the *first*
rule in file order that has this match on a given port. A look-up asks each index for its first rule and takes
the smallest, so the outcome is that of a scan in file order while its cost depends on the number of different
prefix lengths and label depths that occur, not on the number of rules.
"""

from __future__ import annotations

import bisect
import heapq
import ipaddress
import sys
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, Self, TypeVar

import attrs

from session_proxy.policy.ports import ALL_PORTS
from session_proxy.policy.rules import (
    Address,
    AnyMatch,
    Decision,
    GlobMatch,
    NameMatch,
    Rule,
    unmapped,
)
from session_proxy.target import Target

K = TypeVar("K", bound=Hashable)

# Larger than the index of any rule, so that `min` needs no special case.
NO_RULE = sys.maxsize


@attrs.frozen
class FirstByPort:
    """The first rule for each port: from ``starts[i]`` up to the next start it is ``rules[i]``."""

    starts: tuple[int, ...]
    rules: tuple[int, ...]

    @classmethod
    def build(cls, rules: Iterable[tuple[int, Rule]]) -> Self:
        """Return, for every port, the smallest index among the *rules* that include it."""
        opening = sorted(
            (first, last, index) for index, rule in rules for first, last in (rule.ports or ALL_PORTS).ranges
        )
        cuts = sorted({first for first, _, _ in opening} | {last + 1 for _, last, _ in opening})
        starts, winners = [0], [NO_RULE]
        # A sweep over the ports: *open_now* holds (index, last port) of the ranges that have begun.
        open_now: list[tuple[int, int]] = []
        position = 0
        for cut in cuts:
            while position < len(opening) and opening[position][0] == cut:
                _, last, index = opening[position]
                heapq.heappush(open_now, (index, last))
                position += 1
            while open_now and open_now[0][1] < cut:
                heapq.heappop(open_now)
            winner = open_now[0][0] if open_now else NO_RULE
            if winner != winners[-1]:
                starts.append(cut)
                winners.append(winner)
        return cls(tuple(starts), tuple(winners))

    def at(self, port: int) -> int:
        """Return the index of the first rule for *port*, or `NO_RULE`."""
        return self.rules[bisect.bisect_right(self.starts, port) - 1]

    @property
    def first(self) -> int:
        """The smallest index of all."""
        return min(self.rules)


@attrs.frozen
class Level(Generic[K]):
    """The keys of one *size*: that many host bits, or labels. *first* is the smallest rule of all."""

    size: int
    first: int
    keys: dict[K, FirstByPort]


def _levels(entries: Iterable[tuple[int, K, int, Rule]]) -> tuple[Level[K], ...]:
    """Group ``(size, key, index, rule)`` by size; the level with the smallest rule comes first."""
    grouped: dict[int, dict[K, list[tuple[int, Rule]]]] = {}
    for size, key, index, rule in entries:
        grouped.setdefault(size, {}).setdefault(key, []).append((index, rule))
    levels: list[Level[K]] = []
    for size, keys in grouped.items():
        built = {key: FirstByPort.build(rules) for key, rules in keys.items()}
        levels.append(Level(size, min(by_port.first for by_port in built.values()), built))
    return tuple(sorted(levels, key=lambda level: level.first))


@attrs.frozen
class NetworkIndex:
    """Networks of one IP version; a level's size is the number of host bits."""

    levels: tuple[Level[int], ...]

    @classmethod
    def build(cls, bits: int, rules: Iterable[tuple[int, Rule]]) -> Self:
        """Index the networks of that many *bits* among the *rules*."""
        networks = (
            (network, index, rule)
            for index, rule in rules
            for network in rule.networks()
            if network.max_prefixlen == bits
        )
        return cls(
            _levels(
                (
                    bits - network.prefixlen,
                    int(network.network_address) >> (bits - network.prefixlen),
                    index,
                    rule,
                )
                for network, index, rule in networks
            )
        )

    def first(self, address: Address, port: int, best: int) -> int:
        """Return the smallest rule below *best* with a network round *address* on *port*, else *best*."""
        number = int(address)
        for level in self.levels:
            if level.first >= best:
                break
            found = level.keys.get(number >> level.size)
            if found is not None:
                best = min(best, found.at(port))
        return best


@attrs.frozen
class AddressIndex:
    """Networks of both IP versions."""

    v4: NetworkIndex
    v6: NetworkIndex

    @classmethod
    def build(cls, rules: Sequence[tuple[int, Rule]]) -> Self:
        """Index every network among the *rules*."""
        return cls(NetworkIndex.build(32, rules), NetworkIndex.build(128, rules))

    def first(self, address: Address, port: int, best: int) -> int:
        """Return the smallest rule below *best* with a network round *address* on *port*, else *best*."""
        index = self.v4 if isinstance(address, ipaddress.IPv4Address) else self.v6
        return index.first(address, port, best)


@attrs.frozen(repr=False)
class RouteTable:
    """The rules of a profile, ready to decide. Build one with `RouteTable.build`."""

    _decisions: tuple[Decision, ...] = attrs.field(alias="decisions")
    _default: Decision = attrs.field(alias="default")
    _everything: FirstByPort = attrs.field(alias="everything")
    _names: dict[str, FirstByPort] = attrs.field(alias="names")
    _suffixes: tuple[Level[str], ...] = attrs.field(alias="suffixes")
    _networks: AddressIndex = attrs.field(alias="networks")
    _local_networks: AddressIndex = attrs.field(alias="local_networks")
    _local: FirstByPort = attrs.field(alias="local")

    @classmethod
    def build(cls, rules: Sequence[Rule], default: str) -> Self:
        """Index *rules*, given in file order; what none of them matches goes to *default*."""
        numbered = list(enumerate(rules))
        local = [(index, rule) for index, rule in numbered if rule.resolve == "local"]
        names = _levels(
            (0, match.name, index, rule)
            for index, rule in numbered
            for match in rule.match
            if isinstance(match, NameMatch)
        )
        return cls(
            decisions=tuple(Decision(f"routes[{index}]", rule.upstream) for index, rule in numbered),
            default=Decision("default", (default,)),
            everything=FirstByPort.build(
                (index, rule) for index, rule in numbered if AnyMatch() in rule.match
            ),
            names=names[0].keys if names else {},
            suffixes=_levels(
                (match.suffix.count(".") + 1, match.suffix, index, rule)
                for index, rule in numbered
                for match in rule.match
                if isinstance(match, GlobMatch)
            ),
            networks=AddressIndex.build(numbered),
            local_networks=AddressIndex.build(local),
            local=FirstByPort.build((index, rule) for index, rule in local if any(rule.networks())),
        )

    def decide(self, target: Target, addresses: Sequence[Address] = ()) -> Decision:
        """Return where *target* goes: the first rule in file order that matches it, or the default.

        *addresses* are what a name resolves to on this machine; only rules with ``resolve = "local"`` look at
        them, and only where `wants_addresses` said so are they needed.
        """
        address = target.address
        if address is not None:
            best = self._networks.first(address, target.port, self._everything.at(target.port))
        else:
            best = self._first_by_name(target)
            for resolved in addresses:
                best = self._local_networks.first(unmapped(resolved), target.port, best)
        return self._default if best == NO_RULE else self._decisions[best]

    def wants_addresses(self, target: Target) -> bool:
        """Tell whether looking *target* up could change the decision."""
        first_local = self._local.at(target.port)
        return first_local < NO_RULE and target.address is None and first_local < self._first_by_name(target)

    def _first_by_name(self, target: Target) -> int:
        best = self._everything.at(target.port)
        exact = self._names.get(target.host)
        if exact is not None:
            best = min(best, exact.at(target.port))
        labels = target.host.split(".")
        for level in self._suffixes:
            if level.first >= best:
                break
            if level.size < len(labels):
                found = level.keys.get(".".join(labels[-level.size :]))
                if found is not None:
                    best = min(best, found.at(target.port))
        return best

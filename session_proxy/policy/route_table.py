"""Which rule a destination meets first, found without looking at every rule.

Theory: a rule is taken apart into its matches, and every match goes into the index of its kind. What an
index holds for a key is the *first* rule in file order that has this match on a given port. A look-up asks
each index for its first rule and takes the smallest, so the outcome is that of a scan in file order. Names
are keys of a dictionary, suffixes of one per number of labels, and networks are searched as intervals of
addresses, so the cost hardly depends on the number of rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Self, TypeVar

import attrs

from session_proxy.policy.first_by_port import NO_RULE, FirstByPort, NumberedRule, first_by_port
from session_proxy.policy.network_index import NetworkIndex
from session_proxy.policy.rules import Address, AnyMatch, Decision, GlobMatch, NameMatch, Rule, unmapped
from session_proxy.target import Target

M = TypeVar("M")


@attrs.frozen
class Level:
    """The suffixes of as many labels as *size*; *first* is the smallest rule of all of them."""

    size: int
    first: int
    suffixes: dict[str, FirstByPort]


def _levels(suffixes: Mapping[str, FirstByPort]) -> tuple[Level, ...]:
    """Group *suffixes* by their number of labels; the level with the smallest rule comes first."""
    grouped: dict[int, dict[str, FirstByPort]] = {}
    for suffix, rules in suffixes.items():
        grouped.setdefault(suffix.count(".") + 1, {})[suffix] = rules
    levels = (
        Level(size, min(rules.first for rules in group.values()), group) for size, group in grouped.items()
    )
    return tuple(sorted(levels, key=lambda level: level.first))


def _matches_of(kind: type[M], rules: Sequence[NumberedRule]) -> Iterator[tuple[M, NumberedRule]]:
    return ((match, (i, rule)) for i, rule in rules for match in rule.match if isinstance(match, kind))


@attrs.frozen(repr=False)
class RouteTable:
    """The rules of a profile, ready to decide. Build one with `RouteTable.build`."""

    _decisions: tuple[Decision, ...] = attrs.field(alias="decisions")
    _default: Decision = attrs.field(alias="default")
    _everything: FirstByPort = attrs.field(alias="everything")
    _names: dict[str, FirstByPort] = attrs.field(alias="names")
    _suffixes: tuple[Level, ...] = attrs.field(alias="suffixes")
    _networks: NetworkIndex = attrs.field(alias="networks")
    _local_networks: NetworkIndex = attrs.field(alias="local_networks")
    _local: FirstByPort = attrs.field(alias="local")

    @classmethod
    def build(cls, rules: Sequence[Rule], default: str) -> Self:
        """Index *rules*, given in file order; what none of them matches goes to *default*."""
        numbered = list(enumerate(rules))
        local = [(index, rule) for index, rule in numbered if rule.resolve == "local"]
        names = ((match.name, rule) for match, rule in _matches_of(NameMatch, numbered))
        suffixes = ((match.suffix, rule) for match, rule in _matches_of(GlobMatch, numbered))
        return cls(
            decisions=tuple(Decision(f"routes[{index}]", rule.upstream) for index, rule in numbered),
            default=Decision("default", (default,)),
            everything=FirstByPort.build(rule for _, rule in _matches_of(AnyMatch, numbered)),
            names=first_by_port(names),
            suffixes=_levels(first_by_port(suffixes)),
            networks=NetworkIndex.build(numbered),
            local_networks=NetworkIndex.build(local),
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
                found = level.suffixes.get(".".join(labels[-level.size :]))
                if found is not None:
                    best = min(best, found.at(target.port))
        return best

"""Which networks an address lies in, found by one binary search.

Networks nest or are apart. So they cut the addresses into intervals, and all addresses of one interval lie in
the same chain of networks, each within the one before it.
"""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Self

import attrs

from session_proxy.policy.first_by_port import NO_RULE, FirstByPort, NumberedRule, first_by_port
from session_proxy.policy.rules import Address

Chain = tuple[FirstByPort, ...]


@attrs.frozen
class VersionIndex:
    """Networks of one IP version: from ``starts[i]`` up to the next start, addresses lie in ``chains[i]``.

    A chain is ordered by its networks' first rules.
    """

    starts: tuple[int, ...]
    chains: tuple[Chain, ...]

    @classmethod
    def build(cls, bits: int, rules: Iterable[NumberedRule]) -> Self:
        """Index the networks of that many *bits* among the *rules*."""
        networks = first_by_port(
            ((int(network.network_address), -int(network.broadcast_address)), (index, rule))
            for index, rule in rules
            for network in rule.networks()
            if network.max_prefixlen == bits
        )
        intervals = _Intervals()
        # Of networks that begin at the same address, the widest comes first.
        for start, negative_last in sorted(networks):
            intervals.open(start, -negative_last, networks[start, negative_last])
        intervals.close_before(1 << bits)
        return cls(tuple(intervals.starts), tuple(intervals.chains))

    def first(self, address: Address, port: int, best: int) -> int:
        """Return the smallest rule below *best* with a network round *address* on *port*, else *best*."""
        for network in self.chains[bisect.bisect_right(self.starts, int(address)) - 1]:
            if network.first >= best:
                break
            best = min(best, network.at(port))
        return best


@attrs.define(eq=False)
class _Intervals:
    """A sweep over the addresses, in ascending order."""

    starts: list[int] = attrs.field(factory=lambda: [0], init=False)
    chains: list[Chain] = attrs.field(factory=lambda: [()], init=False)
    _open: list[tuple[int, Chain]] = attrs.field(factory=list[tuple[int, Chain]], init=False)

    def open(self, start: int, last: int, network: FirstByPort) -> None:
        self.close_before(start)
        chain = _chain((*self._innermost(), network))
        self._open.append((last, chain))
        self._cut(start, chain)

    def close_before(self, start: int) -> None:
        while self._open and self._open[-1][0] < start:
            last, _ = self._open.pop()
            self._cut(last + 1, self._innermost())

    def _innermost(self) -> Chain:
        return self._open[-1][1] if self._open else ()

    def _cut(self, start: int, chain: Chain) -> None:
        if self.starts[-1] == start:
            self.chains[-1] = chain
        else:
            self.starts.append(start)
            self.chains.append(chain)


def _chain(networks: Iterable[FirstByPort]) -> Chain:
    """Order *networks* by their first rules, without those that can never be first on any port."""
    chain: list[FirstByPort] = []
    bound = NO_RULE
    for network in sorted(networks, key=lambda network: network.first):
        if network.first > bound:
            break
        chain.append(network)
        bound = min(bound, network.last)
    return tuple(chain)


@attrs.frozen
class NetworkIndex:
    """Networks of both IP versions."""

    v4: VersionIndex
    v6: VersionIndex

    @classmethod
    def build(cls, rules: Sequence[NumberedRule]) -> Self:
        """Index every network among the *rules*."""
        return cls(VersionIndex.build(32, rules), VersionIndex.build(128, rules))

    def first(self, address: Address, port: int, best: int) -> int:
        """Return the smallest rule below *best* with a network round *address* on *port*, else *best*."""
        index = self.v4 if isinstance(address, ipaddress.IPv4Address) else self.v6
        return index.first(address, port, best)

"""Of several rules with the same match, the first for each port."""

from __future__ import annotations

import bisect
import heapq
import sys
from collections.abc import Hashable, Iterable
from typing import Self, TypeVar

import attrs

from session_proxy.policy.ports import ALL_PORTS
from session_proxy.policy.rules import Rule

K = TypeVar("K", bound=Hashable)

NumberedRule = tuple[int, Rule]

# Larger than the index of any rule, so that `min` needs no special case.
NO_RULE = sys.maxsize


@attrs.frozen
class FirstByPort:
    """The index of the first rule for each port: from ``starts[i]`` up to the next start it is ``rules[i]``.

    *first* and *last* are the smallest and the largest of them, over all ports.
    """

    starts: tuple[int, ...]
    rules: tuple[int, ...]
    first: int
    last: int

    @classmethod
    def build(cls, rules: Iterable[NumberedRule]) -> Self:
        """Return, for every port, the smallest index among the *rules* that include it."""
        opening = sorted(
            (first, last, index) for index, rule in rules for first, last in (rule.ports or ALL_PORTS).ranges
        )
        cuts = {1, *(first for first, _, _ in opening), *(last + 1 for _, last, _ in opening)}
        starts: list[int] = []
        winners: list[int] = []
        # A sweep over the ports: *open_now* holds (index, last port) of the ranges that have begun.
        open_now: list[tuple[int, int]] = []
        position = 0
        for cut in sorted(cuts - {ALL_PORTS.ranges[0][1] + 1}):
            while position < len(opening) and opening[position][0] == cut:
                _, last, index = opening[position]
                heapq.heappush(open_now, (index, last))
                position += 1
            while open_now and open_now[0][1] < cut:
                heapq.heappop(open_now)
            starts.append(cut)
            winners.append(open_now[0][0] if open_now else NO_RULE)
        return cls(tuple(starts), tuple(winners), min(winners), max(winners))

    def at(self, port: int) -> int:
        """Return the index of the first rule for *port*, or `NO_RULE`."""
        return self.rules[bisect.bisect_right(self.starts, port) - 1]


def first_by_port(keyed: Iterable[tuple[K, NumberedRule]]) -> dict[K, FirstByPort]:
    """Gather the numbered rules of each key."""
    gathered: dict[K, list[NumberedRule]] = {}
    for key, numbered in keyed:
        gathered.setdefault(key, []).append(numbered)
    return {key: FirstByPort.build(rules) for key, rules in gathered.items()}

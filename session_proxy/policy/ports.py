"""Sets of TCP and UDP ports, written as numbers and ranges."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Self

import attrs

LAST_PORT = 65535


class InvalidPortsError(ValueError):
    """A port or a range cannot be used; *fix* says what to write instead."""

    def __init__(self, message: str, fix: str) -> None:
        self.fix = fix
        super().__init__(message)


@attrs.frozen
class PortSet:
    """Ports from 1 to 65535 as inclusive *ranges*: ascending, disjoint and not adjacent."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, items: Iterable[str | int]) -> Self:
        """Return the ports that *items* name, each a number, ``"443"`` or ``"8000-8999"``.

        Raises:
          InvalidPortsError: an item is no port and no range.

        """
        return cls._merged(map(parse_range, items))

    @classmethod
    def union(cls, sets: Iterable[PortSet]) -> Self:
        """Return the ports of all *sets*."""
        return cls._merged(chain.from_iterable(ports.ranges for ports in sets))

    @classmethod
    def _merged(cls, ranges: Iterable[tuple[int, int]]) -> Self:
        merged: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], max(merged[-1][1], last)
            else:
                merged.append((first, last))
        return cls(tuple(merged))

    def contains(self, port: int) -> bool:
        """Tell whether *port* is one of these."""
        return any(first <= port <= last for first, last in self.ranges)

    def covers(self, other: PortSet) -> bool:
        """Tell whether every port of *other* is one of these."""
        return all(
            any(first <= low and high <= last for first, last in self.ranges) for low, high in other.ranges
        )

    def __str__(self) -> str:
        return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in self.ranges)


ALL_PORTS = PortSet(((1, LAST_PORT),))


def parse_range(item: str | int) -> tuple[int, int]:
    """Return the first and last port that *item* names.

    Raises:
      InvalidPortsError: *item* is no port and no range.

    """
    first, dash, last = str(item).partition("-")
    low, high = _parse_port(first, item), _parse_port(last, item) if dash else 0
    if not dash:
        return low, low
    if low > high:
        raise InvalidPortsError(f"the range {item!r} runs backwards", f'write "{high}-{low}"')
    return low, high


def _parse_port(text: str, item: str | int) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()) or not 1 <= int(digits[:6]) <= LAST_PORT:
        raise InvalidPortsError(
            f"{item!r} is not a port", 'write a number from 1 to 65535, or a range such as "8000-8999"'
        )
    return int(digits)

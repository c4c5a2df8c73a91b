"""H1..H4: the ranges that message types are drawn from (spec, section 3)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Self

import attrs

from awg_obfs.errors import HeaderFault, HeaderRangeError, NumberError, NumberFault, shown
from awg_obfs.protocol.decimals import MAX_UINT32, parse_unsigned
from awg_obfs.protocol.randomness import Randomness, uniform, uniform_many


@attrs.frozen
class HeaderRange:
    """The numbers *start* to *end*, both included, each an unsigned 32-bit message type."""

    start: int
    end: int

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= MAX_UINT32:
            raise ValueError(f"{self.start}-{self.end} is not a range of 32-bit numbers")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the range that *text* is: a number, or two with a dash between them.

        Raises:
          HeaderRangeError: it is neither.

        """
        parts = text.split("-")
        if len(parts) > 2:
            raise HeaderRangeError(HeaderFault.TOO_MANY_DASHES, f"{shown(text)} has more than one dash")
        try:
            start, end = (parse_unsigned(part, MAX_UINT32) for part in (parts[0], parts[-1]))
        except NumberError as exc:
            if exc.fault is NumberFault.RANGE:
                raise HeaderRangeError(
                    HeaderFault.NUMBER_RANGE, f"{shown(text)} goes above {MAX_UINT32}"
                ) from exc
            message = f"{shown(text)} is neither a number nor a range of numbers"
            raise HeaderRangeError(HeaderFault.NUMBER_SYNTAX, message) from exc
        if end < start:
            raise HeaderRangeError(HeaderFault.END_BEFORE_START, f"{shown(text)} ends before it starts")
        return cls(start, end)

    @property
    def width(self) -> int:
        """How many numbers there are."""
        return self.end - self.start + 1

    @property
    def covers_everything(self) -> bool:
        """Whether every number is in: the reference cannot draw from such a range, it panics."""
        return self.width > MAX_UINT32

    def __contains__(self, value: int) -> bool:
        return self.start <= value <= self.end

    def overlaps(self, other: HeaderRange) -> bool:
        """Return whether a number lies in both ranges."""
        return self.start <= other.end and other.start <= self.end

    def generate(self, random: Randomness) -> int:
        """Return a number of the range; each message gets a fresh one. A range of one number draws nothing.

        Raises:
          ValueError: the range covers everything; the lint refuses it before it comes to that.

        """
        return self.start + uniform(self.width & MAX_UINT32, random)

    def generate_many(self, count: int, random: Randomness) -> list[int]:
        """Return *count* numbers: what as many calls of `generate` return, from the same bytes, but sooner."""
        start = self.start
        return [start + number for number in uniform_many(self.width & MAX_UINT32, count, random)]

    def __str__(self) -> str:
        return str(self.start) if self.start == self.end else f"{self.start}-{self.end}"


def first_overlap(headers: Sequence[HeaderRange]) -> tuple[int, int] | None:
    """Return the places of the first two of *headers* that share a number, if any do (spec, section 3.3)."""
    for (place, header), (other_place, other) in itertools.combinations(enumerate(headers), 2):
        if header.overlaps(other):
            return place, other_place
    return None


INITIATION = HeaderRange(1, 1)
RESPONSE = HeaderRange(2, 2)
COOKIE_REPLY = HeaderRange(3, 3)
TRANSPORT = HeaderRange(4, 4)

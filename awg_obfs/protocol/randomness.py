"""Where random bytes come from: a function, so that a recorded stream can take its place."""

from __future__ import annotations

from collections.abc import Callable

Randomness = Callable[[int], bytes]
"""Returns the next *n* bytes of a random stream. It is never asked for none."""

# One system call fetches the draws of some hundred packets, and little lies about in memory.
POOL_BLOCK = 16 * 1024


def uniform(width: int, random: Randomness) -> int:
    """Return a number in [0, *width*), drawn as Go's ``crypto/rand.Int`` draws it.

    The same stream gives the same number as in the reference, because the same bytes are masked and rejected
    (spec, section 2.2). A *width* of 1 draws nothing.

    Raises:
      ValueError: *width* is not positive. The reference panics.

    """
    if width <= 1:
        if width < 1:
            raise ValueError(f"there is no number below {width}")
        return 0
    bits = (width - 1).bit_length()
    size = (bits + 7) >> 3
    mask = (1 << bits) - 1
    while (value := int.from_bytes(random(size), "big") & mask) >= width:
        pass
    return value


def uniform_many(width: int, count: int, random: Randomness) -> list[int]:
    """Return *count* numbers in [0, *width*): what as many calls of `uniform` return, from the same bytes.

    At least one draw is needed for each number that is still missing, so that many can be asked for at once.

    Raises:
      ValueError: *width* is not positive.

    """
    if width <= 1:
        if width < 1:
            raise ValueError(f"there is no number below {width}")
        return [0] * count
    bits = (width - 1).bit_length()
    size = (bits + 7) >> 3
    mask = (1 << bits) - 1
    from_bytes = int.from_bytes
    numbers: list[int] = []
    while missing := count - len(numbers):
        drawn = random(missing * size)
        chunks = [from_bytes(drawn[at : at + size], "big") & mask for at in range(0, len(drawn), size)]
        numbers += [number for number in chunks if number < width]
    return numbers


class PooledRandomness:
    """Randomness that asks *source* for blocks: the same bytes in the same order, with fewer system calls."""

    __slots__ = ("_block", "_offset", "_pool", "_source")

    def __init__(self, source: Randomness, block: int = POOL_BLOCK) -> None:
        self._source = source
        self._block = block
        self._pool = b""
        self._offset = 0

    def __call__(self, n: int) -> bytes:
        """Return the next *n* bytes."""
        start = self._offset
        end = start + n
        if end > len(self._pool):
            return self._refill(n)
        self._offset = end
        return self._pool[start:end]

    def _refill(self, n: int) -> bytes:
        left = self._pool[self._offset :]
        missing = n - len(left)
        self._pool = self._source(max(missing, self._block))
        self._offset = missing
        return left + self._pool[:missing]

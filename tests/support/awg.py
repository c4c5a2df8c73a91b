"""The AmneziaWG vectors (what the reference did), and random streams as they were recorded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

Vector = Mapping[str, Any]

FILE = Path(os.environ.get("AWG_VECTORS") or Path(__file__).parents[1] / "vectors/awg.json")
VECTORS: Vector = json.loads(FILE.read_text(encoding="utf-8"))


def vectors(name: str, only: Callable[[Vector], bool] | None = None) -> Sequence[object]:
    """Return the cases of a section as pytest parameters, each under its id; a missing section is skipped by name."""
    if name not in VECTORS:
        missing = pytest.mark.skip(reason=f"{FILE} has no section {name}")
        return [pytest.param({}, id=f"no-{name}", marks=missing)]
    return [
        pytest.param(case, id=case["id"]) for case in VECTORS[name]["cases"] if only is None or only(case)
    ]


def seeded(seed: str) -> Iterator[bytes]:
    """Yield the blocks of the stream that `meta.random_stream` defines."""
    number = 0
    while True:
        yield hashlib.sha256(seed.encode("utf-8") + number.to_bytes(8, "big")).digest()
        number += 1


class RecordedRandomness:
    """A random stream with a beginning, which remembers what was read of it."""

    def __init__(self, *, seed: str | None = None, data: bytes = b"") -> None:
        self._blocks = iter(()) if seed is None else seeded(seed)
        self._left = data
        self.reads: list[str] = []

    def __call__(self, n: int) -> bytes:
        assert n > 0, "nothing is never asked for"
        while len(self._left) < n:
            # A StopIteration here means that more was asked for than the reference read.
            self._left += next(self._blocks)
        read, self._left = self._left[:n], self._left[n:]
        self.reads.append(read.hex())
        return read


def randomness_of(case: Vector) -> RecordedRandomness:
    """Return the stream that a case was recorded with."""
    if "seed" in case:
        return RecordedRandomness(seed=case["seed"])
    return RecordedRandomness(data=bytes.fromhex(case["random_hex"]))

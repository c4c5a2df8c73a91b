"""Which instance to try next, and when: failover order, back-off, cool-down.

A person lists instances by id, tag or name, best first. An entry is *resolved* to instance ids when it is its
turn (tags change hands), and each id is tried in order. One that fails rests; the next one is tried at once;
when all of them rest, the first whose rest is over is tried again.

Pure: `Rotation` takes the time and its randomness as arguments and only says what to do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

import attrs

# The first retry after a link that had proven itself comes at once, the next after 1 to 2 s, then twice as
# long each time. A minute is as long as a person would wait before pressing a button.
FIRST_REST = 2.0
LONGEST_REST = 60.0

# A link that lived this long (seconds) has proven its instance: what went before is forgotten.
PROVEN = 10.0

# Somebody who wants a connection now should not sit out a minute: with demand, a rest ends this long after
# the failure. Errors that need a person (no permission, bad key) would only be repeated, so they rest longer.
REST_ON_DEMAND = 5.0
SLOW_REST_ON_DEMAND = 15.0

# What a tag or name stood for is asked again after this long; long enough not to ask for every reconnect.
RESOLVED_FOR = 300.0


@attrs.frozen
class Resolve:
    """Find out which instances *entry* stands for; answer with `Rotation.resolved` or `Rotation.failed`."""

    entry: str


@attrs.frozen
class Attempt:
    """Try *instance*; answer with `Rotation.failed`, or later with `Rotation.lost`."""

    instance: str


@attrs.frozen
class Rest:
    """Do nothing before *until*."""

    until: float


RotationStep = Resolve | Attempt | Rest


@attrs.define(eq=False)
class _Record:
    """What is remembered of one entry or instance; *failures* in a row, 0 where the last news was good."""

    failures: int = 0
    failed_at: float = -math.inf
    not_before: float = -math.inf
    slow: bool = False
    reason: str = ""


@attrs.frozen
class _Resolved:
    instances: tuple[str, ...]
    until: float


@attrs.define(eq=False)
class Rotation:
    """The instances of one upstream and how each of them fared."""

    entries: tuple[str, ...]
    rng: random.Random = attrs.field(repr=False)
    _records: dict[str, _Record] = attrs.field(factory=dict[str, _Record], init=False)
    _resolved: dict[str, _Resolved] = attrs.field(factory=dict[str, _Resolved], init=False)

    def next_step(self, now: float) -> RotationStep:
        """Return what to do next to get a link."""
        until = math.inf
        for entry in self.entries:
            known = self._resolved.get(entry)
            if known is None or known.until <= now:
                candidates: Sequence[tuple[str, Callable[[str], RotationStep]]] = [(entry, Resolve)]
            else:
                candidates = [(instance, Attempt) for instance in known.instances]
            for name, step in candidates:
                not_before = self._record(name).not_before
                if not_before <= now:
                    return step(name)
                until = min(until, not_before)
        return Rest(until)

    def resolved(self, entry: str, instances: Sequence[str], now: float) -> None:
        """Note that *entry* stands for *instances*, best first; there is at least one."""
        self._resolved[entry] = _Resolved(tuple(dict.fromkeys(instances)), now + RESOLVED_FOR)
        if entry not in instances:
            self._records.pop(entry, None)
        named = {name for known in self._resolved.values() for name in known.instances}.union(self.entries)
        for name in self._records.keys() - named:
            del self._records[name]

    def failed(self, name: str, reason: str, now: float, *, slow: bool = False) -> float:
        """Note that resolving or trying *name* failed, and return how long it rests.

        *slow* marks errors that no quick retry can heal.
        """
        record = self._record(name)
        record.failures += 1
        longest = (
            LONGEST_REST if slow else min(LONGEST_REST, FIRST_REST * 2.0 ** min(record.failures - 1, 10))
        )
        rest = self.rng.uniform(longest / 2, longest)
        record.failed_at, record.not_before = now, now + rest
        record.slow, record.reason = slow, reason
        for entry, known in self._resolved.items():
            if all(self._record(instance).failures for instance in known.instances):
                # None of them works: perhaps the tag has moved on to a machine that does.
                self._resolved[entry] = attrs.evolve(known, until=-math.inf)
        return rest

    def succeeded(self, instance: str) -> None:
        """Note that a link to *instance* came up; `lost` decides later what that was worth."""
        self._record(instance).reason = ""

    def proven(self, instance: str) -> None:
        """Note that *instance* works; what went before is forgotten."""
        self._records[instance] = _Record()

    def lost(self, instance: str, reason: str, now: float, *, lived: float) -> float:
        """Note that the link to *instance* ended after *lived* seconds; return how long it rests."""
        if lived < PROVEN:
            return self.failed(instance, reason, now)
        self._records[instance] = _Record(reason=reason)
        return 0.0

    def demand(self, now: float) -> None:
        """Shorten the rests, because somebody wants a connection at *now*."""
        for record in self._records.values():
            patience = SLOW_REST_ON_DEMAND if record.slow else REST_ON_DEMAND
            record.not_before = min(record.not_before, max(now, record.failed_at + patience))

    @property
    def exhausted(self) -> bool:
        """Whether everything that is known to exist has failed, and nothing good was heard since."""
        return all(record.failures for _, record in self._current())

    @property
    def needs_person(self) -> bool:
        """Whether everything has failed in a way that no retry heals soon."""
        return self.exhausted and all(record.slow for _, record in self._current())

    def reason(self) -> str:
        """Return why nothing works, in failover order: ``i-1, i-2: no answer; i-3: access denied``."""
        by_reason: dict[str, list[str]] = {}
        for name, record in self._current():
            if record.reason:
                by_reason.setdefault(record.reason, []).append(name)
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())

    def _current(self) -> Iterator[tuple[str, _Record]]:
        for entry in self.entries:
            known = self._resolved.get(entry)
            itself = known is None or self._record(entry).failures
            for name in (entry,) if itself or known is None else known.instances:
                yield name, self._record(name)

    def _record(self, name: str) -> _Record:
        return self._records.setdefault(name, _Record())

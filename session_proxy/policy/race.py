"""Which of a route's upstreams to use when: the best that works, and back to a better one when that is well again.

Theory: whoever connects goes through the best upstream that is ready. One before it that is only coming up, or in
doubt, may still win the race: it has a moment's start (`STAGGER`), the very first time that it comes up a longer one
(`START_PATIENCE`). Once it has lost, nobody waits for it again before it is ready. One that was down has to be ready
for a while before it counts as the better one again, so that connections do not follow one that comes and goes; until
then it is used only where nothing else is ready.

Pure: drivers say how the upstreams are, ask `next_move`, and do what it says.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

import attrs

# Seconds by which an upstream that is not ready is ahead of the next one. RFC 8305 (section 5) gives one address of
# several as long; a list of three that has lost its first two is through them in half a second.
STAGGER = 0.25

# Seconds from its start on that an upstream may take to be ready for the first time, where another one is ready: all of
# them start together, and a session through AWS takes a second or two. What takes much longer may not come up at all.
START_PATIENCE = 5.0

# A connection that takes longer than this (seconds), and may go through another upstream, has its own asked whether
# it is there, which may take so long. So a path that is dead is left within a second, and one whose destination is
# slow is not: anything that comes through is an answer.
PROVE_AFTER = 0.2
PROVE_LIMIT = 0.4

# Seconds between two attempts, at least, to bring back an upstream that is down while another one is used; that is how
# often a relay's better server is looked at.
PROBE_INTERVAL = 30.0


class Standing(enum.Enum):
    """How usable an upstream is now."""

    READY = enum.auto()
    """It works, and nothing speaks against that."""
    COMING = enum.auto()
    """It is coming up, or coming back, or in doubt."""
    DOWN = enum.auto()


@attrs.frozen
class Runner:
    """One upstream of a route that may still be used; it has been in its *standing* since *since*.

    *rests* and *fresh* are what `Memory` says.
    """

    name: str
    standing: Standing
    since: float = 0.0
    rests: bool = False
    fresh: bool = False


@attrs.frozen
class Use:
    """Open the destination through the upstream called *name*."""

    name: str


@attrs.frozen
class Wait:
    """Ask again at *until*, and when an upstream's standing changes."""

    until: float


def next_move(
    runners: Sequence[Runner], began: float, now: float, latest: float = math.inf
) -> Use | Wait | None:
    """Return what to do about a connection that has been wanted since *began*; `None`: all that is left is down.

    *runners* are in the order of the route. From *latest* on nobody is waited for where one is ready.
    """
    turn = began
    coming = False
    spare: Runner | None = None
    for runner in runners:
        match runner.standing:
            case Standing.READY:
                if not runner.rests:
                    return _in_turn(runner, min(turn, latest), now)
                spare = spare or runner
            case Standing.COMING:
                coming = True
                if runner.fresh:
                    turn = max(turn, runner.since + START_PATIENCE)
                elif not runner.rests:
                    turn += STAGGER
            case Standing.DOWN:
                pass
    if spare is not None:
        return _in_turn(spare, min(turn, latest), now)
    return Wait(math.inf) if coming else None


def _in_turn(runner: Runner, turn: float, now: float) -> Use | Wait:
    return Use(runner.name) if turn <= now else Wait(turn)


@attrs.define
class _Record:
    """What is remembered of one upstream.

    *settled* once it was ready or down, *passed* while another one is used because it was not ready in time, *failed*
    from when it was down until it has been ready for long enough; ready since *ready_since*, if it is.
    """

    settled: bool = False
    passed: bool = False
    failed: bool = False
    ready_since: float | None = None


@attrs.define(eq=False)
class Memory:
    """What works, and what did not: an upstream that was down is gone back to after *failback* seconds."""

    failback: float
    _records: dict[str, _Record] = attrs.field(factory=dict[str, _Record], init=False)

    def observe(self, name: str, standing: Standing, now: float) -> None:
        """Note how the upstream called *name* is."""
        record = self._record(name)
        match standing:
            case Standing.READY:
                record.settled, record.passed = True, False
                if record.ready_since is None:
                    record.ready_since = now
                if now >= record.ready_since + self.failback:
                    record.failed = False
            case Standing.COMING:
                record.ready_since = None
            case Standing.DOWN:
                record.settled, record.failed, record.ready_since = True, True, None

    def passed(self, name: str) -> None:
        """Note that another upstream was used because this one was not ready in time."""
        self._record(name).passed = True

    def rests(self, name: str) -> bool:
        """Return whether others are to be used where they can be, as far as observed."""
        record = self._record(name)
        return record.failed or record.passed

    def is_fresh(self, name: str) -> bool:
        """Return whether it comes up for the first time, and nobody has given up waiting for that."""
        record = self._record(name)
        return not record.settled and not record.passed

    def back_at(self, name: str) -> float:
        """Return when an upstream that was down is gone back to if it stays ready; then it is to be observed."""
        record = self._record(name)
        if not record.failed or record.ready_since is None:
            return math.inf
        return record.ready_since + self.failback

    def forget(self, name: str) -> None:
        """Remember nothing of an upstream that is no more, or another one of the same name."""
        self._records.pop(name, None)

    def _record(self, name: str) -> _Record:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = _Record()
        return record

"""Whether to try a destination that keeps failing: a circuit breaker for each user and destination.

Closed, everything is let through. After so many failures in a row it opens, and nothing is, for a minute; then it is
half open: a few attempts are let through, and the first of them that ends decides. An attempt's outcome counts only
where it says something: what was begun before the breaker opened says nothing of the time after.

Whoever was let through holds a `Pass`, and hands it back with the outcome, or with none (`Breakers.abandoned`).
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator

import attrs

# What one user may make us remember: the one touched longest ago is forgotten. Each cost the user a failure.
MOST_DESTINATIONS = 256

# How many users are remembered; the one touched longest ago is forgotten.
MOST_USERS = 16384


class BreakerState(enum.IntEnum):
    """Ordered by how bad it is: the number is what `tunnel_circuit_breaker_state` shows."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@attrs.frozen(kw_only=True)
class BreakerSettings:
    """When to open, and for how long.

    Attributes:
      failures: So many in a row open it.
      recovery: Seconds that nothing is let through for.
      trials: How many are let through at a time while it is half open.
      trial: Seconds after which a trial that has not been heard of holds up no other (guessed: what connecting and
        authenticating may take).

    """

    failures: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    recovery: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    trials: int = attrs.field(default=3, validator=attrs.validators.ge(1))
    trial: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))


@attrs.frozen
class Pass:
    """Somebody was let through to *destination*; *trial* is 0 where the breaker was closed."""

    user: str
    destination: str
    trial: int = 0


@attrs.frozen
class Held:
    """Nobody is let through; trying makes sense in so many seconds."""

    retry_in: float


@attrs.define(eq=False)
class _Breaker:
    """One that has something to remember: failures in a row, or when it opened."""

    failures: int = 0
    opened_at: float | None = None
    # When each trial began, by its number.
    trials: dict[int, float] = attrs.field(factory=dict[int, float])

    def state(self, settings: BreakerSettings, now: float) -> BreakerState:
        if self.opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if now >= self.opened_at + settings.recovery else BreakerState.OPEN

    def open(self, now: float) -> None:
        self.opened_at = now
        self.trials.clear()


@attrs.define(eq=False)
class Breakers:
    """The breakers of all users; those that are closed and have seen no failure take no memory.

    Attributes:
      settings: When they open.

    """

    settings: BreakerSettings = BreakerSettings()
    # Those touched longest ago come first.
    _users: dict[str, dict[str, _Breaker]] = attrs.field(factory=dict[str, dict[str, _Breaker]], init=False)
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), init=False)

    def admit(self, user: str, destination: str, now: float) -> Pass | Held:
        """Say whether *destination* may be tried for *user*."""
        breaker = self._find(user, destination)
        if breaker is None or breaker.opened_at is None:
            return Pass(user, destination)
        left = breaker.opened_at + self.settings.recovery - now
        if left > 0:
            return Held(left)
        for number, since in list(breaker.trials.items()):
            if now >= since + self.settings.trial:
                del breaker.trials[number]
        if len(breaker.trials) >= self.settings.trials:
            return Held(min(breaker.trials.values()) + self.settings.trial - now)
        number = next(self._numbers)
        breaker.trials[number] = now
        return Pass(user, destination, number)

    def succeeded(self, admitted: Pass) -> None:
        """Note that the destination works."""
        breaker = self._find(admitted.user, admitted.destination)
        if breaker is not None and self._counts(breaker, admitted):
            self._forget(admitted.user, admitted.destination)

    def failed(self, admitted: Pass, now: float) -> bool:
        """Note that the destination does not work; return whether that has opened the breaker."""
        breaker = self._find(admitted.user, admitted.destination)
        if breaker is None:
            if admitted.trial:
                return False
            breaker = self._remember(admitted.user, admitted.destination)
        if not self._counts(breaker, admitted):
            return False
        breaker.failures += 1
        if admitted.trial or breaker.failures >= self.settings.failures:
            breaker.open(now)
            return True
        return False

    def abandoned(self, admitted: Pass) -> None:
        """Note that the attempt was given up, which says nothing of the destination."""
        breaker = self._find(admitted.user, admitted.destination)
        if breaker is not None:
            breaker.trials.pop(admitted.trial, None)

    def state(self, user: str, destination: str, now: float) -> BreakerState:
        """Return how things stand with *destination*."""
        breaker = self._users.get(user, {}).get(destination)
        return BreakerState.CLOSED if breaker is None else breaker.state(self.settings, now)

    def states(self, now: float) -> Iterator[tuple[str, str, BreakerState]]:
        """Yield user, destination and state of all that are not closed."""
        for user, breakers in self._users.items():
            for destination, breaker in breakers.items():
                state = breaker.state(self.settings, now)
                if state is not BreakerState.CLOSED:
                    yield user, destination, state

    def worst(self, now: float) -> BreakerState:
        """Return the worst of all states: users and destinations are too many for a metric each."""
        return max((state for _, _, state in self.states(now)), default=BreakerState.CLOSED)

    def __len__(self) -> int:
        return sum(map(len, self._users.values()))

    @staticmethod
    def _counts(breaker: _Breaker, admitted: Pass) -> bool:
        if admitted.trial:
            return admitted.trial in breaker.trials
        return breaker.opened_at is None

    def _find(self, user: str, destination: str) -> _Breaker | None:
        """Return what is remembered of *destination*, and remember it longer than the others."""
        breakers = self._users.get(user)
        if breakers is None:
            return None
        self._users[user] = self._users.pop(user)
        breaker = breakers.pop(destination, None)
        if breaker is not None:
            breakers[destination] = breaker
        return breaker

    def _remember(self, user: str, destination: str) -> _Breaker:
        breakers = self._users.setdefault(user, {})
        breaker = breakers[destination] = _Breaker()
        if len(breakers) > MOST_DESTINATIONS:
            del breakers[next(iter(breakers))]
        if len(self._users) > MOST_USERS:
            del self._users[next(iter(self._users))]
        return breaker

    def _forget(self, user: str, destination: str) -> None:
        breakers = self._users[user]
        del breakers[destination]
        if not breakers:
            del self._users[user]

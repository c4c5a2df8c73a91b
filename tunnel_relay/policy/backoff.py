"""When to try again what has failed: at once, then after 2 s, 4 s and so on; never silent for longer than it must.

After so many attempts in vain the state says *down*, for people to see, and a slow probe goes on: what is down may come
back without anybody being told.

Pure: `Backoff` takes the time and its randomness as arguments and only says how long to rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

# A link that lived this long (seconds) has proven its way: what went before is forgotten.
PROVEN = 10.0

# Somebody who wants a connection now should not sit out a minute: with demand, a rest ends this long after the failure.
# Errors that need a person (a token that is not accepted) would only be repeated, so they rest longer.
REST_ON_DEMAND = 5.0
SLOW_REST_ON_DEMAND = 15.0

# More doublings than this reach every bound that makes sense, and a float still holds them.
_MOST_DOUBLINGS = 32


@attrs.frozen(kw_only=True)
class BackoffSettings:
    """How long to rest between attempts; all in seconds but *factor*, *jitter* and *attempts*.

    Attributes:
      first: The rest before the second retry; the first one comes at once.
      factor: What each rest is multiplied by to get the next.
      jitter: By which part of itself a rest may be shorter or longer, so that those who lost the same server do not
        come back in step.
      longest: No rest is longer, jitter included.
      attempts: After so many in vain the state is *down*.
      probe: The rest between attempts from then on (guessed: slow enough for a server that many look for).

    """

    first: float = attrs.field(default=2.0, validator=attrs.validators.gt(0))
    factor: float = attrs.field(default=2.0, validator=attrs.validators.ge(1))
    jitter: float = attrs.field(
        default=0.3, validator=attrs.validators.and_(attrs.validators.ge(0), attrs.validators.lt(1))
    )
    longest: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    attempts: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    probe: float = attrs.field(default=120.0, validator=attrs.validators.gt(0))


DEFAULT_BACKOFF = BackoffSettings()


@attrs.define(eq=False)
class Backoff:
    """What is remembered of one way that sometimes fails.

    Attributes:
      rng: Returns numbers from 0 to below 1, all equally likely.
      settings: How long to rest.
      failures: Attempts in vain since the last link that was proven.
      down: Whether there were so many that only a slow probe goes on.
      reason: Why the last attempt failed or the last link was lost; empty while all is well.
      not_before: When the next attempt may be made.

    """

    rng: Callable[[], float] = attrs.field(repr=False)
    settings: BackoffSettings = DEFAULT_BACKOFF
    failures: int = attrs.field(default=0, init=False)
    down: bool = attrs.field(default=False, init=False)
    reason: str = attrs.field(default="", init=False)
    not_before: float = attrs.field(default=-math.inf, init=False)
    _retries: int = attrs.field(default=0, init=False)
    _failed_at: float = attrs.field(default=-math.inf, init=False)
    _patience: float = attrs.field(default=REST_ON_DEMAND, init=False)

    def failed(self, reason: str, now: float, *, slow: bool = False, retry_after: float = 0.0) -> float:
        """Note that an attempt failed, and return how long to rest.

        *slow* marks errors that no quick retry can heal; *retry_after* is when, in the other end's own word, an attempt
        makes sense again. No more is believed of it than the longest rest.
        """
        self.failures += 1
        self.down = self.failures >= self.settings.attempts
        asked = min(retry_after, self.settings.longest) if retry_after > 0 else 0.0
        rest = max(self._next_rest(slow=slow), asked)
        self._patience = max(SLOW_REST_ON_DEMAND if slow else REST_ON_DEMAND, asked)
        self.reason, self._failed_at, self.not_before = reason, now, now + rest
        return rest

    def succeeded(self) -> None:
        """Note that a link came up; `lost` decides later what that was worth."""
        self.down, self.reason = False, ""

    def lost(self, reason: str, now: float, *, lived: float) -> float:
        """Note that a link ended after *lived* seconds, and return how long to rest."""
        if lived < PROVEN:
            return self.failed(reason, now)
        self.proven()
        self.reason, self._failed_at, self.not_before = reason, now, now
        # The attempt that follows is the first retry.
        self._retries = 1
        return 0.0

    def proven(self) -> None:
        """Note that this way works; what went before is forgotten."""
        self.failures = self._retries = 0
        self.down, self.reason, self.not_before = False, "", -math.inf

    def demand(self, now: float) -> None:
        """Shorten the rest, because somebody wants a connection at *now*."""
        self.not_before = min(self.not_before, max(now, self._failed_at + self._patience))

    def _next_rest(self, *, slow: bool) -> float:
        bounds, retries = self.settings, self._retries
        self._retries += 1
        if self.down:
            return bounds.probe * self._spread()
        # The bound is met before the jitter is added: else those who wait longest would all wait equally long.
        most = bounds.longest / (1.0 + bounds.jitter)
        if slow:
            return most * self._spread()
        if retries == 0:
            return 0.0
        return min(most, bounds.first * bounds.factor ** min(retries - 1, _MOST_DOUBLINGS)) * self._spread()

    def _spread(self) -> float:
        return 1.0 + self.settings.jitter * (2.0 * self.rng() - 1.0)

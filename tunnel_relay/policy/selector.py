"""Which of several relay servers to use: the best that works, and back to a better one when that is well again.

Endpoints of the lowest priority number come first, as with SRV records (RFC 2782); among equals the one that worked
last is taken again, else one by chance, by weight. One that fails rests (`Backoff`), and the next is tried at once.
While a worse one is in use, the better ones are asked for their health now and then; one that was well all along for a
while is gone back to, beside the link that there is, so that nothing is lost if it does not answer after all.

Pure: drivers ask `next_step`, `to_probe` and `better`, do what they say, and report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs

from tunnel_relay.policy.backoff import DEFAULT_BACKOFF, PROVEN, Backoff, BackoffSettings


@attrs.frozen(kw_only=True)
class Endpoint:
    """A relay server.

    Attributes:
      url: Where it is; no two endpoints have the same.
      priority: The lower, the better.
      weight: Among those of one priority: how many of all clients it gets, beside the others' weights.

    """

    url: str
    priority: int = attrs.field(default=1, validator=attrs.validators.ge(0))
    weight: int = attrs.field(default=1, validator=attrs.validators.ge(1))


@attrs.frozen(kw_only=True)
class SelectorSettings:
    """When to fail over, and back; in seconds.

    Attributes:
      health_check_interval: Between two looks at a better endpoint, more or less: clients do not look in step.
      failback: Whether to go back at all before the link in use is lost.
      failback_delay: How long a better endpoint has to be well before it is gone back to (guessed: a server that has
        just begun may end again).
      backoff: How long an endpoint that failed rests.

    """

    health_check_interval: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    failback: bool = True
    failback_delay: float = attrs.field(default=60.0, validator=attrs.validators.ge(0))
    backoff: BackoffSettings = DEFAULT_BACKOFF


@attrs.frozen
class Attempt:
    """Try *endpoint*; answer with `Selector.connected` or `Selector.failed`."""

    endpoint: Endpoint


@attrs.frozen
class Rest:
    """Do nothing before *until*."""

    until: float


@attrs.frozen(kw_only=True)
class FailoverState:
    """What people want to know.

    Attributes:
      primary: What would be used if all were well.
      active: What is used; None while there is no link.
      failed_over_at: Since when a worse one than the primary is used; None where it is not.
      reason: Why, or why there is no link.
      down: Whether every endpoint has failed so often that only slow probes go on.

    """

    primary: Endpoint
    active: Endpoint | None
    failed_over_at: float | None
    reason: str
    down: bool


@attrs.define(eq=False)
class _Record:
    backoff: Backoff
    healthy_since: float | None = None
    """Since when nothing but good was heard of it."""
    probe_at: float = 0.0
    up_since: float = 0.0

    @property
    def is_doubtful(self) -> bool:
        """Whether it failed, and nothing good was heard since."""
        return self.backoff.failures > 0 and self.healthy_since is None


@attrs.define(eq=False)
class Selector:
    """The endpoints of one relay and how each of them fared.

    Attributes:
      endpoints: At least one.
      rng: Returns numbers from 0 to below 1, all equally likely.
      settings: When to fail over, and back.
      works: The URL of the endpoint that a link came up to last; give it to the next selector, to go on with that.

    """

    endpoints: Sequence[Endpoint]
    rng: Callable[[], float] = attrs.field(repr=False)
    settings: SelectorSettings = SelectorSettings()
    works: str = ""
    _records: dict[str, _Record] = attrs.field(factory=dict[str, _Record], init=False)
    _active: Endpoint | None = attrs.field(default=None, init=False)
    _failed_over_at: float | None = attrs.field(default=None, init=False)
    _failed_over_for: str = attrs.field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        self._records = {
            endpoint.url: _Record(Backoff(self.rng, self.settings.backoff)) for endpoint in self.endpoints
        }
        if len(self._records) != len(self.endpoints) or not self.endpoints:
            raise ValueError("there must be endpoints, each with a URL of its own")

    def next_step(self, now: float) -> Attempt | Rest:
        """Return what to do to get a link, where there is none."""
        ready = [each for each in self.endpoints if self._record(each).backoff.not_before <= now]
        if not ready:
            return Rest(self._rested_at())
        # None gets a second attempt before all had their first.
        unspoiled = [each for each in ready if not self._record(each).is_doubtful]
        return Attempt(self._pick(unspoiled or ready))

    def connected(self, endpoint: Endpoint, now: float) -> None:
        """Note that a link to *endpoint* came up, and is the one in use; another one is not, from now on."""
        before = self._active
        if before is not None and before != endpoint:
            record = self._record(before)
            if now - record.up_since >= PROVEN:
                record.backoff.proven()
        record = self._record(endpoint)
        record.backoff.succeeded()
        record.up_since = now
        if record.healthy_since is None:
            record.healthy_since = now
        self._active, self.works = endpoint, endpoint.url
        better = self._better_ones()
        if not better:
            self._failed_over_at, self._failed_over_for = None, ""
            return
        if self._failed_over_at is None:
            self._failed_over_at, self._failed_over_for = now, self._reasons(better)
        for each in better:
            self._record(each).probe_at = now + self._interval()

    def failed(
        self, endpoint: Endpoint, reason: str, now: float, *, slow: bool = False, retry_after: float = 0.0
    ) -> float:
        """Note that *endpoint* could not be reached; the arguments and what is returned are `Backoff.failed`'s."""
        record = self._record(endpoint)
        record.healthy_since = None
        return record.backoff.failed(reason, now, slow=slow, retry_after=retry_after)

    def lost(self, endpoint: Endpoint, reason: str, now: float) -> float:
        """Note that the link to *endpoint* ended, not by our will; return how long it rests."""
        record = self._record(endpoint)
        if self._active == endpoint:
            self._active = None
        record.healthy_since = None
        return record.backoff.lost(reason, now, lived=now - record.up_since)

    def left(self, endpoint: Endpoint, now: float) -> None:
        """Note that we have ended the link to *endpoint* ourselves."""
        if self._active == endpoint:
            self._active = None
        record = self._record(endpoint)
        if now - record.up_since >= PROVEN:
            record.backoff.proven()

    def demand(self, now: float) -> None:
        """Shorten the rests, because somebody wants a connection at *now*."""
        for record in self._records.values():
            record.backoff.demand(now)

    def begin_anew(self) -> None:
        """Rest no longer: what failed says nothing of what is tried now."""
        for record in self._records.values():
            record.backoff.proven()

    def to_probe(self, now: float) -> list[Endpoint]:
        """Return the endpoints whose health is to be looked at now; answer with `probed`. Each is returned once."""
        if not self.settings.failback:
            return []
        due = [each for each in self._better_ones() if self._record(each).probe_at <= now]
        for each in due:
            self._record(each).probe_at = now + self._interval()
        return due

    def probed(self, endpoint: Endpoint, now: float, *, healthy: bool) -> None:
        """Note what was found."""
        record = self._record(endpoint)
        if not healthy:
            record.healthy_since = None
        elif record.healthy_since is None:
            record.healthy_since = now

    def better(self, now: float) -> Endpoint | None:
        """Return what to go back to: try it beside the link that there is; answer with `connected` or `failed`."""
        due = [each for each in self._better_ones() if self._failback_at(each) <= now]
        return self._pick(due) if due else None

    def next_timer(self, now: float) -> float | None:
        """Return when to ask again though nothing has happened; None where that is not needed."""
        if self._active is None:
            return max(now, self._rested_at())
        if not self.settings.failback:
            return None
        times = [min(self._record(each).probe_at, self._failback_at(each)) for each in self._better_ones()]
        return min(times, default=None)

    def state(self) -> FailoverState:
        """Return how things stand."""
        best = min(each.priority for each in self.endpoints)
        primary = max(
            (each for each in self.endpoints if each.priority == best), key=lambda each: each.weight
        )
        return FailoverState(
            primary=primary,
            active=self._active,
            failed_over_at=self._failed_over_at,
            reason=self._failed_over_for if self._active else self._reasons(self.endpoints),
            down=self._active is None and all(record.backoff.down for record in self._records.values()),
        )

    def _better_ones(self) -> list[Endpoint]:
        if self._active is None:
            return []
        return [each for each in self.endpoints if each.priority < self._active.priority]

    def _rested_at(self) -> float:
        return min(record.backoff.not_before for record in self._records.values())

    def _failback_at(self, endpoint: Endpoint) -> float:
        record = self._record(endpoint)
        if not self.settings.failback or record.healthy_since is None:
            return math.inf
        return max(record.healthy_since + self.settings.failback_delay, record.backoff.not_before)

    def _pick(self, among: Sequence[Endpoint]) -> Endpoint:
        best = min(each.priority for each in among)
        equals = [each for each in among if each.priority == best]
        for each in equals:
            if each.url == self.works:
                return each
        drawn = self.rng() * sum(each.weight for each in equals)
        for each in equals[:-1]:
            drawn -= each.weight
            if drawn < 0:
                return each
        return equals[-1]

    def _interval(self) -> float:
        jitter = self.settings.backoff.jitter
        return self.settings.health_check_interval * (1.0 + jitter * (2.0 * self.rng() - 1.0))

    def _reasons(self, endpoints: Sequence[Endpoint]) -> str:
        """Return why none of them works, in order: ``wss://a, wss://b: no answer; wss://c: refused``."""
        by_reason: dict[str, list[str]] = {}
        for each in endpoints:
            if reason := self._record(each).backoff.reason:
                by_reason.setdefault(reason, []).append(each.url)
        return "; ".join(f"{', '.join(urls)}: {reason}" for reason, urls in by_reason.items())

    def _record(self, endpoint: Endpoint) -> _Record:
        return self._records[endpoint.url]

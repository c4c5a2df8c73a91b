"""How many striped links an upstream holds, and which of them carries the next stream.

The far end of an SSM session sends about 1 MB/s and no more, so several sessions to one instance carry
several streams faster than one could. The pool starts with one link and grows while streams queue, which is
when a new stream finds streams on every link. A stream stays on the link that it was put on, so where the best
link is at its limit, or seems about to be, the new stream waits a moment for one that is coming up; each that
comes up takes its share of those that wait. Links that stay idle are given back, down to one.

Pure: drivers ask `Pool.steps` what to do, do it, and report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from session_proxy.policy.rotation import Attempt, Resolve, Rest, Rotation

# A spare link without a stream is given back after this long: longer than the pauses in somebody's clicking,
# shorter than the 20 minutes after which AWS closes an idle session.
IDLE_BEFORE_CLOSING = 60.0

# How often spare links are looked at; a link may so live this much longer than it must.
IDLE_CHECK = 10.0

# After a failed attempt to grow, carry on with what there is for this long: the links that work are not at
# fault, and quotas (StartSession is throttled per account) do not heal by asking again.
PAUSE_AFTER_FAILED_GROWTH = 30.0

# What a stream may wait for a link that is coming up. A session through AWS takes about a second; the second more
# is for a slow day. Where links are known to take longer, nobody waits for them.
GROWTH_PATIENCE = 2.0

# For this long after a stream was put on a link nobody can tell what will come through it. Streams that start
# together, as parallel downloads do, are taken at their worst.
UNTRIED = 1.0


@attrs.frozen
class Load:
    """What a link carries: *streams*, and whether they get as much through it as it can carry (*flowing*).

    One that is *away* carries nothing for now, and will go on.
    """

    streams: int = 0
    flowing: bool = False
    away: bool = False


NO_LOAD = Load()


@attrs.frozen
class Connect:
    """Open link number *link* to *instance*; answer with `Pool.link_up` or `Pool.link_failed`."""

    link: int
    instance: str


@attrs.frozen
class Close:
    """Close link number *link*: it has been idle."""

    link: int


PoolStep = Resolve | Connect | Close


@attrs.define(eq=False)
class _Link:
    instance: str
    growth: bool
    begun: float
    up_since: float | None = None
    idle_since: float | None = None
    placed: float = -math.inf
    """When the last stream was put on it, beside that many others."""
    beside: int = 0

    def is_busy(self, load: Load, now: float) -> bool:
        """Whether a stream more would get, or give, less than it could."""
        # Fewer streams than there were: the last one has ended, or made up for others that have.
        untried = now - self.placed < UNTRIED and load.streams > self.beside
        return load.streams > 0 and (load.flowing or untried)


@attrs.define(eq=False)
class Pool:
    """The links of one upstream: at most *limit* of them, all to one instance at a time."""

    rotation: Rotation
    limit: int
    _links: dict[int, _Link] = attrs.field(factory=dict[int, "_Link"], init=False)
    _numbers: int = attrs.field(default=0, init=False)
    _wanted: int = attrs.field(default=1, init=False)
    _resolving: bool = attrs.field(default=False, init=False)
    _no_growth_before: float = attrs.field(default=-math.inf, init=False)
    _setup: float = attrs.field(default=0.0, init=False)
    """How long the last link took to come up."""

    def steps(self, now: float, loads: Mapping[int, Load]) -> list[PoolStep]:
        """Return what is to be done at *now*, when the links carry *loads*."""
        if not self._links:
            return self._first(now)
        up = self._up()
        if not up:
            return []
        return [*self._growth(now, up), *self._surplus(now, up, loads)]

    def next_timer(self, now: float) -> float:
        """Return when `steps` wants to be asked again though nothing has happened; may be infinite."""
        if not self._links and not self._resolving:
            step = self.rotation.next_step(now)
            return step.until if isinstance(step, Rest) else now
        return now + IDLE_CHECK if len(self._up()) > 1 else math.inf

    def place(
        self, now: float, loads: Mapping[int, Load], *, waiting: int = 0, patient: bool = False
    ) -> int | None:
        """Return the link that is to carry one more stream; `None`: wait until one comes up, or back.

        The best one is not busy, carries the fewest streams, and is the oldest, so that the younger ones can
        fall idle. A *patient* stream waits rather than share a busy link, if there is one coming up for it
        beside the *waiting* streams.
        """
        up = {name: link for name, link in self._up().items() if not loads.get(name, NO_LOAD).away}
        if not up:
            return None
        number = min(
            up, key=lambda name: (up[name].is_busy(load := loads.get(name, NO_LOAD), now), load.streams, name)
        )
        link, load = up[number], loads.get(number, NO_LOAD)
        if load.streams:
            total = 1 + waiting + sum(loads.get(name, NO_LOAD).streams for name in up)
            self._wanted = max(self._wanted, min(self.limit, total))
            # Those that wait share what is coming up: no link is worth it that will be as full as this one.
            room = self._coming(now) * load.streams
            if patient and link.is_busy(load, now) and waiting < room and self._setup <= GROWTH_PATIENCE:
                return None
        link.idle_since = None
        link.placed, link.beside = now, load.streams
        return number

    def link_up(self, link: int, now: float) -> None:
        """Note that *link* works."""
        self._links[link].up_since = now
        self._setup = now - self._links[link].begun
        self.rotation.succeeded(self._links[link].instance)

    def link_failed(self, link: int, reason: str, now: float, *, slow: bool = False) -> float:
        """Note that *link* did not come up; return how long its instance rests."""
        failed = self._links.pop(link)
        self._wanted = max(1, len(self._links))
        if failed.growth and self._up():
            self._no_growth_before = now + PAUSE_AFTER_FAILED_GROWTH
            return PAUSE_AFTER_FAILED_GROWTH
        return self.rotation.failed(failed.instance, reason, now, slow=slow)

    def link_lost(self, link: int, reason: str, now: float) -> float:
        """Note that *link*, which was up, broke; return how long its instance rests."""
        lost = self._links.pop(link)
        self._wanted = max(1, len(self._links))
        if self._up():
            # The others still work, so the instance does.
            return 0.0
        lived = now - (lost.up_since if lost.up_since is not None else now)
        return self.rotation.lost(lost.instance, reason, now, lived=lived)

    def link_closed(self, link: int) -> None:
        """Note that *link* was closed because `steps` said so."""
        self._links.pop(link, None)
        self._wanted = max(1, min(self._wanted, len(self._links)))

    def resolved(self, entry: str, instances: tuple[str, ...], now: float) -> None:
        """Note what *entry* stands for."""
        self._resolving = False
        self.rotation.resolved(entry, instances, now)

    def resolve_failed(self, entry: str, reason: str, now: float, *, slow: bool = False) -> float:
        """Note that *entry* could not be resolved; return how long it rests."""
        self._resolving = False
        return self.rotation.failed(entry, reason, now, slow=slow)

    @property
    def ready(self) -> bool:
        """Whether a link is up."""
        return bool(self._up())

    @property
    def size(self) -> int:
        """How many links are up."""
        return len(self._up())

    @property
    def wants_more(self) -> bool:
        """Whether `steps` would open another link beside those that are up."""
        return min(self._wanted, self.limit) > len(self._links)

    def is_connecting(self, link: int) -> bool:
        """Whether *link* has neither come up nor failed yet."""
        return link in self._links and self._links[link].up_since is None

    def instance_of(self, link: int) -> str:
        """Return the instance that *link* leads to."""
        return self._links[link].instance

    def instances_up(self) -> tuple[str, ...]:
        """Return the instances that a link is up to."""
        return tuple(dict.fromkeys(link.instance for link in self._up().values()))

    def _up(self) -> dict[int, _Link]:
        return {number: link for number, link in self._links.items() if link.up_since is not None}

    def _first(self, now: float) -> list[PoolStep]:
        if self._resolving:
            return []
        match self.rotation.next_step(now):
            case Resolve() as step:
                self._resolving = True
                return [step]
            case Attempt(instance):
                return [self._connect(instance, now, growth=False)]
            case Rest():
                return []

    def _missing(self, now: float) -> int:
        """Return how many links beside those that are there are wanted, and may be asked for at *now*."""
        if now < self._no_growth_before:
            return 0
        return max(0, min(self._wanted, self.limit) - len(self._links))

    def _coming(self, now: float) -> int:
        return len(self._links) - self.size + self._missing(now)

    def _growth(self, now: float, up: Mapping[int, _Link]) -> list[PoolStep]:
        instance = up[min(up)].instance
        return [self._connect(instance, now, growth=True) for _ in range(self._missing(now))]

    def _surplus(self, now: float, up: Mapping[int, _Link], loads: Mapping[int, Load]) -> list[PoolStep]:
        for number, link in up.items():
            if loads.get(number, NO_LOAD).streams:
                link.idle_since = None
            elif link.idle_since is None:
                link.idle_since = now
        idle = [
            number
            for number, link in up.items()
            if link.idle_since is not None and now - link.idle_since >= IDLE_BEFORE_CLOSING
        ]
        # The youngest go first; one link always stays, so that the next stream need not wait.
        closing = sorted(idle, reverse=True)[: len(up) - 1]
        for number in closing:
            self.link_closed(number)
        return [Close(number) for number in closing]

    def _connect(self, instance: str, now: float, *, growth: bool) -> Connect:
        self._numbers += 1
        self._links[self._numbers] = _Link(instance, growth, now)
        return Connect(self._numbers, instance)

"""How often users and addresses may ask for something: token buckets, and when there will be a token again.

A bucket holds so many tokens and is refilled steadily; what is asked for takes one. All that is remembered of a bucket
is when it will be full: one number, which a shared store can keep as well (`Rate.take` is the whole computation). One
that is full is as good as one that nobody has touched, and is forgotten.
"""

from __future__ import annotations

import enum
import ipaddress
import math
from collections.abc import Mapping

import attrs

# How many buckets of a kind are kept. Where more are in use, the one touched longest ago is given up: who has so many
# users or addresses gets as many tokens anyway, and nobody else is turned away for it.
MOST_BUCKETS = 65536

# An end user with IPv6 has at least so many bits of network of his own (RFC 6177): to him, addresses cost nothing.
IPV6_PREFIX = 64

# What a clock that counts from 1970 cannot tell apart, and a little.
_SLACK = 1e-6


@attrs.frozen
class Rate:
    """So many tokens per so many seconds.

    Attributes:
      tokens: What comes in every *period*.
      period: In seconds.
      burst: What the bucket holds, at least 1: what may be taken at once after a pause. As a rule, *tokens*.

    """

    tokens: float = attrs.field(validator=attrs.validators.gt(0))
    period: float = attrs.field(validator=attrs.validators.gt(0))
    burst: float = attrs.field(
        default=attrs.Factory(lambda self: max(1.0, self.tokens), takes_self=True),
        validator=attrs.validators.ge(1),
    )

    def take(self, full_at: float, now: float) -> tuple[float, float]:
        """Take a token of a bucket that is full at *full_at*.

        Returns when it is full then, and how many seconds there are until there is a token: 0.0 where it was taken.
        """
        each = self.period / self.tokens
        after = max(full_at, now) + each
        wait = after - now - self.burst * each
        return (after, 0.0) if wait <= _SLACK else (full_at, wait)

    def borrow(self, full_at: float, now: float, credit: float) -> tuple[float, Pace]:
        """Take a token as `take` does, or on *credit*: so many tokens may be missing.

        Returns when the bucket is full then, and what becomes of who asked.
        """
        each = self.period / self.tokens
        after = max(full_at, now) + each
        wait = after - now - self.burst * each
        if wait <= _SLACK:
            return after, GRANTED
        if wait <= credit * each + _SLACK:
            return after, Pace(wait)
        return full_at, Pace(wait - credit * each, refused=True)


@attrs.frozen
class Pace:
    """What becomes of who asks on credit.

    Attributes:
      wait: Seconds to hear nothing more from it: until what it has had is paid back. 0.0 where it has no debt.
      refused: It has had too much already; after *wait* it may ask again.

    """

    wait: float
    refused: bool = False


GRANTED = Pace(0.0)


@attrs.define(eq=False)
class Buckets:
    """A bucket for each key."""

    # When the bucket will be full, by key; the one touched longest ago comes first.
    _full_at: dict[str, float] = attrs.field(factory=dict[str, float], init=False)
    # How many tokens were taken since somebody asked, by key, where somebody does.
    _taken: dict[str, tuple[Rate, int]] | None = attrs.field(default=None, init=False)

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, rate: Rate, now: float) -> float:
        """Take a token of *key*'s; return how many seconds to wait until there is one, 0.0 where it was taken."""
        full_at, wait = rate.take(self._full_at.pop(key, -math.inf), now)
        self._make_room(now)
        self._full_at[key] = full_at
        if not wait:
            self._note(key, rate)
        return wait

    def borrow(self, key: str, rate: Rate, now: float, credit: float) -> Pace:
        """Take a token of *key*'s, on *credit* if need be; see `Rate.borrow`."""
        full_at, pace = rate.borrow(self._full_at.pop(key, -math.inf), now, credit)
        self._make_room(now)
        self._full_at[key] = full_at
        if not pace.refused:
            self._note(key, rate)
        return pace

    def taken(self) -> dict[str, tuple[Rate, int]]:
        """Return how many tokens were taken since the last time, by key; nothing the first time."""
        taken, self._taken = self._taken, {}
        return taken or {}

    def agree(self, key: str, full_at: float, now: float) -> None:
        """Take into account what was taken elsewhere: a bucket is not full before *full_at*."""
        full_at = max(full_at, self._full_at.pop(key, -math.inf))
        self._make_room(now)
        self._full_at[key] = full_at

    def _note(self, key: str, rate: Rate) -> None:
        if self._taken is None or (key not in self._taken and len(self._taken) >= MOST_BUCKETS):
            return
        self._taken[key] = rate, self._taken.get(key, (rate, 0))[1] + 1

    def _make_room(self, now: float) -> None:
        while self._full_at:
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) < MOST_BUCKETS:
                return
            del self._full_at[oldest]


class Act(enum.Enum):
    """What is counted; the values are what metrics call it."""

    ADDRESS = "address"
    """An upgrade, by the address that it comes from: counted before anybody is believed to be a user."""
    UPGRADE = "upgrade"
    REQUEST = "request"
    OPEN = "open"


@attrs.frozen(kw_only=True)
class Rates:
    """What one user may ask for.

    Attributes:
      requests: REQUESTs and upgrades together.
      opens: OPENs: a page that is looked at opens dozens of streams at once, which are no requests.

    """

    requests: Rate = Rate(100, 60.0)
    opens: Rate = Rate(50, 1.0)


# Guessed: people behind one address share it, and one of them may go through it again and again in bad weather.
PER_ADDRESS = Rate(300, 60.0, 100)


@attrs.define(eq=False)
class RateLimits:
    """What users and addresses have asked for of late.

    Attributes:
      tiers: What the users of a tier may ask for.
      default: What those of any other tier may ask for.
      per_address: What may come from one address.

    """

    tiers: Mapping[str, Rates]
    default: Rates = Rates()
    per_address: Rate = PER_ADDRESS
    _addresses: Buckets = attrs.field(factory=Buckets, init=False)
    _requests: Buckets = attrs.field(factory=Buckets, init=False)
    _opens: Buckets = attrs.field(factory=Buckets, init=False)
    _sessions: Buckets = attrs.field(factory=Buckets, init=False)
    _violations: dict[Act, int] = attrs.field(factory=lambda: dict.fromkeys(Act, 0), init=False)

    def change(self, other: RateLimits) -> None:
        """Have the rates of *other* from now on; what users and addresses have asked for is not forgotten."""
        self.tiers, self.default, self.per_address = other.tiers, other.default, other.per_address

    def connect(self, address: str, now: float) -> float:
        """Count an upgrade from *address*; return how many seconds to wait before it may be made, 0.0 for none."""
        return self._counted(Act.ADDRESS, self._addresses.take(address_key(address), self.per_address, now))

    def upgrade(self, user: str, tier: str, now: float) -> float:
        """Count an upgrade by *user*; returns what `connect` returns."""
        rate = self._rates(tier).requests
        return self._counted(Act.UPGRADE, self._requests.take(user, rate, now))

    def request(self, user: str, tier: str, now: float) -> float:
        """Count a REQUEST by *user*; returns what `connect` returns."""
        rate = self._rates(tier).requests
        return self._counted(Act.REQUEST, self._requests.take(user, rate, now))

    def open(self, user: str, tier: str, now: float) -> float:
        """Count an OPEN by *user*; returns what `connect` returns."""
        return self._counted(Act.OPEN, self._opens.take(user, self._rates(tier).opens, now))

    def pace_request(self, user: str, tier: str, now: float) -> Pace:
        """Count a REQUEST that is here already: it is done on credit, for its like cannot be many at once."""
        rate = self._rates(tier).requests
        return self._paced(Act.REQUEST, self._requests.borrow(user, rate, now, math.inf))

    def pace_open(self, user: str, tier: str, now: float) -> Pace:
        """Count an OPEN that is here already: on a credit of one more burst."""
        rate = self._rates(tier).opens
        return self._paced(Act.OPEN, self._opens.borrow(user, rate, now, rate.burst))

    def pace_session(self, user: str, tier: str, now: float) -> Pace:
        """Count a session that begins, or comes back: as often as streams may be opened, and beside those."""
        rate = self._rates(tier).opens
        return self._paced(Act.OPEN, self._sessions.borrow(user, rate, now, rate.burst))

    def buckets(self) -> Mapping[str, Buckets]:
        """Return the buckets that servers share, by what they call them."""
        return {"addresses": self._addresses, "requests": self._requests, "opens": self._opens}

    @property
    def violations(self) -> Mapping[Act, int]:
        """How often something was asked for too soon."""
        return dict(self._violations)

    def _rates(self, tier: str) -> Rates:
        return self.tiers.get(tier, self.default)

    def _paced(self, act: Act, pace: Pace) -> Pace:
        self._counted(act, pace.wait)
        return pace

    def _counted(self, act: Act, wait: float) -> float:
        if wait:
            self._violations[act] += 1
        return wait


def address_key(address: str) -> str:
    """Return what an IP *address* is counted under: IPv4 by itself, IPv6 by its network; any other text by itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, IPV6_PREFIX), strict=False))

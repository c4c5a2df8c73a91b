"""Which link of an agent is the one that counts: registrations with fencing numbers, which end unless renewed.

An agent that dials again takes its registration over at once; nobody asks what the old link thinks of it. So that the
old one cannot disturb the new one, be it on another server with a slow clock, each registration has a higher number
than all before it, and what is told under a lower number is not heeded. A server that is gone renews nothing, and what
it held is forgotten.

Pure, and small enough to be said again in the words of a shared store: a counter, a value with an end per key, and
changes only by whoever has the number.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

# Seconds: as long as a link may be silent before it counts as lost.
LENGTH = 45.0

# Two renewals may get lost.
RENEW_EVERY = LENGTH / 3

# What one user may register: more than a fleet has, fewer than memory holds (guessed).
MOST_AGENTS = 256


@attrs.frozen
class AgentKey:
    """An agent: agents of one name are a pool, told apart by *instance*."""

    user: str
    name: str
    instance: str


@attrs.frozen
class Lease:
    """A registration.

    Attributes:
      key: Whose it is.
      holder: Which server has its link: its internal address, for others to forward to.
      fence: Higher than that of any registration before.
      until: When it ends unless it is renewed.
      leaving: Whether the agent is about to end, and begins nothing.

    """

    key: AgentKey
    holder: str
    fence: int
    until: float
    leaving: bool = False


@attrs.define(eq=False)
class Leases:
    """The registrations of all agents.

    Attributes:
      length: Seconds from a renewal to the end.

    """

    length: float = attrs.field(default=LENGTH, validator=attrs.validators.gt(0))
    # One counter for all: numbers go on rising though nothing is remembered of those that are gone.
    _fence: int = attrs.field(default=0, init=False)
    # The one that ends first comes first, as all last equally long.
    _leases: dict[AgentKey, Lease] = attrs.field(factory=dict[AgentKey, Lease], init=False)
    _users: dict[str, dict[AgentKey, None]] = attrs.field(factory=dict[str, dict[AgentKey, None]], init=False)

    def acquire(self, key: AgentKey, holder: str, now: float) -> Lease | None:
        """Register *key*, whoever had it; None where its user has too many."""
        self._expire(now)
        self._drop(key)
        if len(self._users.get(key.user, ())) >= MOST_AGENTS:
            return None
        self._fence += 1
        lease = Lease(key, holder, self._fence, now + self.length)
        self._leases[key] = lease
        self._users.setdefault(key.user, {})[key] = None
        return lease

    def renew(self, lease: Lease, now: float) -> Lease | None:
        """Let *lease* last longer; None where it has ended or was taken over, and its link is to be closed."""
        if not self.holds(lease, now):
            return None
        del self._leases[lease.key]
        renewed = self._leases[lease.key] = attrs.evolve(lease, until=now + self.length)
        return renewed

    def release(self, lease: Lease) -> bool:
        """End *lease*, unless it was taken over; return whether that has ended the registration."""
        current = self._leases.get(lease.key)
        if current is None or current.fence != lease.fence:
            return False
        self._drop(lease.key)
        return True

    def holds(self, lease: Lease, now: float) -> bool:
        """Whether *lease* is the one that counts."""
        current = self._leases.get(lease.key)
        return current is not None and current.fence == lease.fence and now < current.until

    def find(self, key: AgentKey, now: float) -> Lease | None:
        """Return the registration of one agent."""
        lease = self._leases.get(key)
        return lease if lease is not None and now < lease.until else None

    def pool(self, user: str, name: str, now: float) -> list[Lease]:
        """Return the registrations of all agents of that name, the oldest first."""
        return sorted(
            (lease for lease in self.of_user(user, now) if lease.key.name == name),
            key=lambda lease: lease.fence,
        )

    def of_user(self, user: str, now: float) -> Iterator[Lease]:
        """Yield the registrations of all agents of *user*."""
        for key in self._users.get(user, ()):
            lease = self.find(key, now)
            if lease is not None:
                yield lease

    def __len__(self) -> int:
        return len(self._leases)

    def _expire(self, now: float) -> None:
        while self._leases:
            first = next(iter(self._leases.values()))
            if now < first.until:
                return
            self._drop(first.key)

    def _drop(self, key: AgentKey) -> None:
        if self._leases.pop(key, None) is None:
            return
        keys = self._users[key.user]
        del keys[key]
        if not keys:
            del self._users[key.user]


@attrs.define(eq=False)
class Fence:
    """Where somebody acts under fencing numbers: lets nobody act who has been followed by another."""

    highest: int = 0

    def admits(self, number: int) -> bool:
        """Whether who has *number* may act; from then on, nobody with a lower one may."""
        if number < self.highest:
            return False
        self.highest = number
        return True

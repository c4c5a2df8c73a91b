"""What servers behind one balancer agree about: rates, tokens that count no more, agents, and how much users have.

Nothing that goes through a relay passes through a store. A server that cannot reach its store goes on with what it
knows itself: what it asks here, it asks beside its work, and nobody waits for the answer but who looks for an agent
that this server does not have.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import attrs
import trio

from tunnel_relay.errors import RelayError
from tunnel_relay.policy.access import Held
from tunnel_relay.policy.lease import LENGTH, AgentKey, Lease, Leases
from tunnel_relay.policy.rate import Rate

# Seconds that a token stays revoked for after the last server has said so. Each says so again while its file does.
REVOKED_FOR = 86400.0


class StoreAwayError(RelayError):
    """The store cannot be asked, or does not answer; the message says why."""


class Store(Protocol):
    """See the module. Everything here raises `StoreAwayError`, in bounded time."""

    @property
    def trouble(self) -> str:
        """Why the last thing that was asked was not answered; empty where it was."""
        ...

    async def take(self, bucket: str, key: str, rate: Rate, tokens: int = 1) -> float:
        """Take *tokens* out of the *bucket* of *key*, whether it has them or not; return seconds until it is full."""
        ...

    async def register(self, key: AgentKey, holder: str) -> Lease | None:
        """Note that the server at *holder* has an agent's link, whoever had it; None where its user has too many."""
        ...

    async def renew(self, lease: Lease) -> Lease | None:
        """Let *lease* last longer; None where another server has the agent now.

        One that has ended, or that the store has forgotten, is followed by another one with a higher fence.
        """
        ...

    async def unregister(self, lease: Lease) -> bool:
        """End *lease*, unless another server has the agent now; return whether it was ended."""
        ...

    async def agents(self, user: str) -> list[Lease]:
        """Return the registrations of all agents of *user*, the latest first."""
        ...

    async def revoke(self, tokens: Collection[str]) -> None:
        """Let *tokens* count no more, for `REVOKED_FOR`."""
        ...

    async def revoked(self) -> frozenset[str]:
        """Return the tokens that count no more."""
        ...

    async def hold(self, user: str, held: Held, count: int) -> int:
        """Note that *user* has *count* here; return how many he has at other servers.

        It has to be said again within a lease's length; what a server has that is gone is not counted.
        """
        ...


@attrs.define(eq=False)
class Memory:
    """What a `MemoryStore` knows."""

    leases: Leases = attrs.field(factory=Leases)
    full_at: dict[tuple[str, str], float] = attrs.field(factory=dict[tuple[str, str], float])
    revoked: dict[str, float] = attrs.field(factory=dict[str, float])
    # By server: how many, and until when that holds.
    held: dict[tuple[str, Held], dict[str, tuple[int, float]]] = attrs.field(
        factory=dict[tuple[str, Held], dict[str, tuple[int, float]]]
    )


@attrs.define(eq=False)
class MemoryStore:
    """A store for servers within one process: for one that is alone, and for tests.

    Attributes:
      server: What tells this server from others.
      memory: What those that are to agree have in common.

    """

    server: str = ""
    memory: Memory = attrs.field(factory=Memory)
    trouble: str = attrs.field(default="", init=False)

    async def take(self, bucket: str, key: str, rate: Rate, tokens: int = 1) -> float:
        """See `Store.take`."""
        now = await self._now()
        full_at = self.memory.full_at
        for full in [each for each, until in full_at.items() if until <= now]:
            del full_at[full]
        until = max(full_at.get((bucket, key), now), now) + tokens * rate.period / rate.tokens
        full_at[bucket, key] = until
        return until - now

    async def register(self, key: AgentKey, holder: str) -> Lease | None:
        """See `Store.register`."""
        return self.memory.leases.acquire(key, holder, await self._now())

    async def renew(self, lease: Lease) -> Lease | None:
        """See `Store.renew`."""
        now, leases = await self._now(), self.memory.leases
        if leases.find(lease.key, now) is None:
            return leases.acquire(lease.key, lease.holder, now)
        return leases.renew(lease, now)

    async def unregister(self, lease: Lease) -> bool:
        """See `Store.unregister`."""
        await self._now()
        return self.memory.leases.release(lease)

    async def agents(self, user: str) -> list[Lease]:
        """See `Store.agents`."""
        now = await self._now()
        return sorted(self.memory.leases.of_user(user, now), key=lambda lease: -lease.fence)

    async def revoke(self, tokens: Collection[str]) -> None:
        """See `Store.revoke`."""
        now = await self._now()
        self.memory.revoked.update(dict.fromkeys(tokens, now + REVOKED_FOR))

    async def revoked(self) -> frozenset[str]:
        """See `Store.revoked`."""
        now = await self._now()
        return frozenset(token for token, until in self.memory.revoked.items() if now < until)

    async def hold(self, user: str, held: Held, count: int) -> int:
        """See `Store.hold`."""
        now = await self._now()
        known = self.memory.held.pop((user, held), {})
        known.pop(self.server, None)
        others = {server: said for server, said in known.items() if now < said[1]}
        said = {self.server: (count, now + LENGTH)} if count else {}
        if others or said:
            self.memory.held[user, held] = {**others, **said}
        return sum(number for number, _ in others.values())

    @staticmethod
    async def _now() -> float:
        await trio.lowlevel.checkpoint()
        return trio.current_time()

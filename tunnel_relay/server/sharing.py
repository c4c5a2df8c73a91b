"""Tells the store what users do and have here, and learns what they do and have at other servers.

Nobody waits for that: each server decides by what it knows, and knows within a fraction of a second what happens at the
others. So a user who comes to several servers at the same moment may have at each of them what he may have at one, for
that moment. What relay servers hold for users themselves, SSH connections, is each server's own matter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import attrs
import trio

from tunnel_relay.policy.access import Access, Held
from tunnel_relay.policy.lease import LENGTH
from tunnel_relay.policy.rate import MOST_BUCKETS, Rate, RateLimits
from tunnel_relay.server.store import Store, StoreAwayError

# Seconds between two rounds; until a store that has not answered is asked again; and between two looks at which tokens
# are revoked.
ROUND = 0.1
AGAIN = 1.0
LOOK = 2.0

# Seconds until our own revoked tokens are said again, should the store have forgotten them.
SAID = 300.0

# Buckets that are told of in one round; the others have to wait for the next.
MOST_TOLD = 256

SHARED = frozenset({Held.CONNECTIONS, Held.SESSIONS, Held.STREAMS})


@attrs.define(eq=False)
class Sharing:
    """See the module.

    Attributes:
      store: What servers share.
      rates: What users have asked for here.
      access: What they have here.
      revoke: Called with all revoked tokens when they have changed.
      length: Seconds for which the store believes what we say of users.

    """

    store: Store
    rates: RateLimits
    access: Access
    revoke: Callable[[frozenset[str]], None]
    length: float = LENGTH
    _own: frozenset[str] = attrs.field(default=frozenset[str](), init=False)
    _shared: frozenset[str] = attrs.field(default=frozenset[str](), init=False)
    # The tokens that were taken out of buckets and are not told of, by what those are called.
    _taken: dict[tuple[str, str], tuple[Rate, int]] = attrs.field(
        factory=dict[tuple[str, str], tuple[Rate, int]], init=False
    )
    _all_said_at: float = attrs.field(default=-math.inf, init=False)
    _looked_at: float = attrs.field(default=-math.inf, init=False)
    _own_said_at: float = attrs.field(default=-math.inf, init=False)

    def revoke_here(self, tokens: frozenset[str]) -> None:
        """Have *tokens* revoked, here at once and at other servers soon."""
        self._own, self._own_said_at, self._looked_at = tokens, -math.inf, -math.inf
        self.revoke(self._own | self._shared)

    async def run(self) -> None:
        """Share until cancelled."""
        while True:
            try:
                await self._share()
                await trio.sleep(ROUND)
            except StoreAwayError:
                self.access.forget_elsewhere()
                # It may come back with nothing in it.
                self._all_said_at = self._own_said_at = -math.inf
                await trio.sleep(AGAIN)

    async def leave(self) -> None:
        """Say that users have nothing here any more; raises `StoreAwayError`."""
        for user, held, _ in self.access.changed(everything=True):
            if held in SHARED:
                await self.store.hold(user, held, 0)

    async def _share(self) -> None:
        now = trio.current_time()
        if now >= self._looked_at + LOOK:
            await self._share_revoked(now)
        await self._share_buckets()
        everything = now >= self._all_said_at + self.length / 3
        if everything:
            self._all_said_at = now
        for user, held, count in self.access.changed(everything=everything):
            if held in SHARED:
                self.access.agree(user, held, await self.store.hold(user, held, count))

    async def _share_buckets(self) -> None:
        for name, buckets in self.rates.buckets().items():
            for key, (rate, tokens) in buckets.taken().items():
                before = self._taken.get((name, key), (rate, 0))[1]
                if before or len(self._taken) < MOST_BUCKETS:
                    self._taken[name, key] = rate, before + tokens
        for name, key in list(itertools.islice(self._taken, MOST_TOLD)):
            rate, tokens = self._taken.pop((name, key))
            full = await self.store.take(name, key, rate, tokens)
            now = trio.current_time()
            self.rates.buckets()[name].agree(key, now + full, now)

    async def _share_revoked(self, now: float) -> None:
        if now >= self._own_said_at + SAID:
            own = self._own
            await self.store.revoke(own)
            if own is self._own:
                self._own_said_at = now
        shared = await self.store.revoked()
        self._looked_at = now
        if shared != self._shared:
            self._shared = shared
            self.revoke(self._own | shared)

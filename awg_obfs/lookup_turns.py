"""Turns at the resolver: so many look-ups at a time, and so many of one client."""

from __future__ import annotations

from collections.abc import Hashable
from typing import cast

import attrs
import trio

# getaddrinfo(3) blocks a thread for as long as the resolver takes. A slow one must not take all the threads that
# Trio has for everything else; this many look-ups at once are more than a resolver likes to get.
MOST_LOOKUPS = 64

# Names whose servers do not answer take 10 s and more each. Who asks for many of them waits for its own, and not
# everybody else as well. A page's names fit.
MOST_OF_CLIENT = 16


@attrs.frozen(eq=False)
class LookupTurns:
    """Limiters for the threads that look names up, one for each client; there is one more limit for all together."""

    _all: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(MOST_LOOKUPS), init=False, repr=False
    )
    # As many as there are peers in the configuration.
    _of_clients: dict[Hashable, trio.CapacityLimiter] = attrs.field(
        factory=dict[Hashable, trio.CapacityLimiter], init=False, repr=False
    )

    def of_client(self, client: Hashable) -> trio.CapacityLimiter:
        """Return the limiter for a thread that looks a name up for *client*.

        It is the same for all connections of the client: a turn is given back when its thread ends, and whoever has
        gone, or come back, has not made its threads end by that.
        """
        own = self._of_clients.get(client)
        if own is None:
            own = self._of_clients[client] = trio.CapacityLimiter(MOST_OF_CLIENT)
        # Trio takes whatever has these two methods, and says so.
        return cast("trio.CapacityLimiter", _BothLimits(own, self._all))


@attrs.frozen(eq=False)
class _BothLimits:
    """The limiter of Trio's documentation for two policies at once."""

    _own: trio.CapacityLimiter
    _all: trio.CapacityLimiter

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        # In this order: who waits for its own turns does not stand in the queue of all.
        await self._own.acquire_on_behalf_of(borrower)
        try:
            await self._all.acquire_on_behalf_of(borrower)
        except BaseException:
            self._own.release_on_behalf_of(borrower)
            raise

    def release_on_behalf_of(self, borrower: object) -> None:
        self._all.release_on_behalf_of(borrower)
        self._own.release_on_behalf_of(borrower)

"""Round trips that somebody waits for."""

from __future__ import annotations

import attrs
import trio


@attrs.define(eq=False)
class _Ping:
    sent_at: float
    answered: trio.Event = attrs.field(factory=trio.Event)
    round_trip: float | None = None


@attrs.define(eq=False)
class Pings:
    """The pings under way on one connection."""

    _pings: dict[int, _Ping] = attrs.field(factory=dict[int, _Ping])
    # 0 is a probe that nobody waits for.
    _last: int = 0

    def begin(self) -> int:
        """Return the number of a new ping, which leaves now."""
        self._last += 1
        self._pings[self._last] = _Ping(trio.current_time())
        return self._last

    async def wait(self, uid: int) -> float | None:
        """Return how long the answer took, in seconds; None where the connection ended first."""
        ping = self._pings[uid]
        try:
            await ping.answered.wait()
        finally:
            del self._pings[uid]
        return ping.round_trip

    def answer(self, uid: int) -> None:
        """The peer acknowledged the ping."""
        ping = self._pings.get(uid)
        if ping is not None and ping.round_trip is None:
            ping.round_trip = trio.current_time() - ping.sent_at
            ping.answered.set()

    def give_up(self) -> None:
        """No answer will come any more."""
        for ping in self._pings.values():
            ping.answered.set()

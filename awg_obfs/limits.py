"""Bounds of a server, and the bucket that paces what a client may do."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of a server: numbers, and seconds.

    Attributes:
      sessions: Clients at the same time.
      streams: Connections of one client at the same time.
      associations: UDP associations of one client at the same time.
      opens: Connections and UDP associations that one client may open in a second, in the long run.
      connect: How long reaching a destination may take.
      handshake: How long a client whose session is up may take to begin, and how long one of its streams may take
        to say what it wants, and to let itself be answered.
      idle: A connection or a UDP association on which nothing moved for this long is ended.
      drain: How long open connections may go on once the server is to stop.

    """

    sessions: int = 1024
    streams: int = 512
    associations: int = 128
    opens: float = 500.0
    connect: float = 30.0
    handshake: float = 10.0
    idle: float = 300.0
    drain: float = 10.0


@attrs.define(eq=False)
class TokenBucket:
    """Lets *burst* through at once, and *rate* in each second after that.

    Times are seconds on any clock that does not go backwards.
    """

    rate: float
    burst: float
    _tokens: float = attrs.field(init=False)
    _at: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._tokens = self.burst

    def take(self, now: float, *, patience: float = 0.0) -> float | None:
        """Return how many seconds to wait for one's turn; None, and nothing is taken, where that exceeds *patience*."""
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        wait = max(0.0, (1.0 - self._tokens) / self.rate)
        if wait > patience:
            return None
        self._tokens -= 1.0
        return wait

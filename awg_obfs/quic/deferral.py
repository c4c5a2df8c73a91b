"""When qh3's news may be asked for: not while it may still hold a copy of a stream that has ended.

qh3 2.1 forgets a stream when it hands out that the stream is finished. Frames of it, repeated ones and resets among
them, may then be built already and wait for room in the congestion window. A frame of a forgotten stream makes its
core fail when it leaves ("reserved stream is missing"), and the connection with it. So news wait, while a stream is
about to finish, until the window has room again or that many datagrams have left.
"""

from __future__ import annotations

import attrs

# How many frames qh3 may have built ahead: 16 as a rule, and one of each stream that has any where it probes. Each
# datagram takes one of them at least.
FRAMES_AHEAD = 64


@attrs.define(eq=False)
class Deferral:
    """The streams whose end is on its way, and whether anything may be waiting to leave."""

    _ending: set[int] = attrs.field(factory=set[int])
    _blocked: bool = False
    _sent: int = 0
    _news_at: int | None = None

    def ended(self, stream_id: int) -> None:
        """The end of our direction of the stream was given."""
        self._ending.add(stream_id)

    def finished(self, stream_id: int) -> None:
        """Both directions of the stream are over, and qh3 has forgotten it."""
        self._ending.discard(stream_id)

    def received(self) -> None:
        """Datagrams came in, so that there may be news."""
        if self._news_at is None:
            self._news_at = self._sent

    def flushed(self, count: int, *, blocked: bool) -> None:
        """*count* datagrams left; *blocked* says whether more may be waiting to."""
        self._sent += count
        self._blocked = blocked

    def asked(self) -> None:
        """All news were taken."""
        self._news_at = None

    @property
    def due(self) -> bool:
        """Whether to ask for news."""
        return (
            not (self._blocked and self._ending)
            or self._news_at is None
            or self._sent - self._news_at >= FRAMES_AHEAD
        )

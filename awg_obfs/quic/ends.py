"""Ends of streams that may never reach the peer, because qh3 forgets one that it should repeat.

Where the end of a stream travels alone (a STREAM frame with FIN and no data), gets lost, and data before it is not
acknowledged yet, qh3 2.1 does not send it again: adding the empty range to what is to be repeated fails, and that is
taken for the whole answer. The reader would wait for ever. Nothing tells whether an end has arrived, but every loss
is counted, so after a loss the peer is told of all ends that were sent by then, in a note (awg_obfs.quic.notes).
"""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class Ends:
    """The ends that were sent and may be lost, each with how many bytes came before it."""

    _sent: dict[int, int] = attrs.field(factory=dict[int, int])
    _ends: dict[int, int] = attrs.field(factory=dict[int, int])
    # How many packets had been lost when the first of `_ends` was sent.
    _losses: int = 0

    def wrote(self, stream_id: int, amount: int) -> None:
        """*amount* more bytes were given to the stream."""
        self._sent[stream_id] = self._sent.get(stream_id, 0) + amount

    def ended(self, stream_id: int, losses: int) -> None:
        """The end was given to the stream, *losses* packets having been lost so far."""
        if not self._ends:
            self._losses = losses
        self._ends[stream_id] = self._sent.pop(stream_id, 0)

    def forget(self, stream_id: int) -> None:
        """The stream is over in both directions, or was reset."""
        self._sent.pop(stream_id, None)
        self._ends.pop(stream_id, None)

    @property
    def any(self) -> bool:
        """Whether any may be lost."""
        return bool(self._ends)

    def take_doubtful(self, losses: int) -> list[tuple[int, int]]:
        """Return the streams, and the bytes of each, whose end is in doubt now that *losses* packets were lost."""
        if losses == self._losses:
            return []
        doubtful = list(self._ends.items())
        self._ends.clear()
        return doubtful

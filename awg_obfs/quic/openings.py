"""Which streams the peer has opened, and the ends of those that it is yet to open."""

from __future__ import annotations

import attrs

# RFC 9000, section 2.1: the lowest two bits tell who opened a stream, and whether both may send.
UNIDIRECTIONAL = 2
_STREAM_STEP = 4


@attrs.define(eq=False)
class Openings:
    """Keeps count of the streams that the peer opens.

    Args:
      next_stream: The number of the first one.
      most: How many ends are kept of streams that have not come.

    """

    _next: int = attrs.field(alias="next_stream")
    _most: int = attrs.field(alias="most")
    # Those before the next one that it has opened without a word yet.
    _passed_over: set[int] = attrs.field(factory=set[int], init=False)
    _ends: dict[int, int] = attrs.field(factory=dict[int, int], init=False)

    def __len__(self) -> int:
        """Return how many streams are kept that nothing has come of."""
        return len(self._passed_over) + len(self._ends)

    def opens(self, stream_id: int) -> bool:
        """Return whether the peer opens a stream by speaking of it. Speaking of one opens all before it.

        Only for streams that the engine speaks of: it limits how many the peer may open.
        """
        if not self._may_come(stream_id):
            return False
        if stream_id < self._next:
            self._passed_over.discard(stream_id)
        else:
            self._passed_over.update(range(self._next, stream_id, _STREAM_STEP))
            self._next = stream_id + _STREAM_STEP
        return True

    def keep_end(self, stream_id: int, total: int) -> None:
        """Keep what a note says of a stream that has not come; nonsense, and what is too much, is passed over."""
        if self._may_come(stream_id) and len(self._ends) < self._most:
            self._ends[stream_id] = total

    def take_end(self, stream_id: int) -> int | None:
        """Return after how many bytes a stream ends that has come now, if a note has told."""
        return self._ends.pop(stream_id, None)

    def _may_come(self, stream_id: int) -> bool:
        """Return whether the stream is one that the peer opens, and has not opened with a word yet."""
        if stream_id % _STREAM_STEP != self._next % _STREAM_STEP:
            return False
        return stream_id >= self._next or stream_id in self._passed_over

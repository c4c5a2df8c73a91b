"""What streams have to send that qh3 has not been given yet, for it is given no more than it may send at once.

qh3 2.1 builds up to 16 STREAM frames ahead, and while they wait for room in the congestion window, its
acknowledgements wait behind them. Where both ends have filled their windows, neither hears of what has arrived, and
both wait for their probe timeouts. What is not there cannot be built ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs

from awg_obfs.quic.engine import Buffer
from awg_obfs.quic.settings import KIB

# What one stream is given before the next one has its turn, and may have waiting in qh3.
PIECE = 16 * KIB


@attrs.define(eq=False)
class _Queue:
    pieces: deque[memoryview] = attrs.field(factory=deque[memoryview])
    size: int = 0
    end: bool = False


@attrs.define(eq=False)
class Feed:
    """The bytes of streams in the order in which they are given, in turn.

    Attributes:
      give: Gives a stream's next bytes, and whether they are its last.
      waiting: Tells how many bytes of a stream wait in qh3.

    """

    give: Callable[[int, bytes, bool], None]
    waiting: Callable[[int], int]
    _queues: dict[int, _Queue] = attrs.field(factory=dict[int, _Queue])

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, stream_id: int, data: Buffer, *, end: bool) -> None:
        """Queue *data*, which is not touched afterwards, and the end of the stream after it."""
        queue = self._queues.get(stream_id)
        if queue is None:
            queue = self._queues[stream_id] = _Queue()
        if data:
            queue.pieces.append(memoryview(data))
            queue.size += len(data)
        queue.end = queue.end or end

    def size(self, stream_id: int) -> int:
        """Return how many bytes of the stream are queued."""
        queue = self._queues.get(stream_id)
        return 0 if queue is None else queue.size

    def forget(self, stream_id: int) -> None:
        """The stream sends nothing more."""
        self._queues.pop(stream_id, None)

    def give_out(self, room: int) -> bool:
        """Give *room* bytes, at most; return whether anything was given.

        A stream that has enough waiting is passed over: its reader is behind.
        """
        given = False
        for stream_id in list(self._queues):
            if room <= 0:
                break
            queue = self._queues.pop(stream_id)
            most = min(room, PIECE - self.waiting(stream_id)) if queue.size else 0
            if queue.size and most <= 0:
                self._queues[stream_id] = queue
                continue
            data = _take(queue, most)
            room -= len(data)
            given = True
            self.give(stream_id, data, queue.end and not queue.size)
            if queue.size:
                self._queues[stream_id] = queue
        return given


def _take(queue: _Queue, most: int) -> bytes:
    taken: list[memoryview] = []
    while queue.pieces and most > 0:
        piece = queue.pieces.popleft()
        if len(piece) > most:
            queue.pieces.appendleft(piece[most:])
            piece = piece[:most]
        taken.append(piece)
        most -= len(piece)
        queue.size -= len(piece)
    return b"".join(taken)

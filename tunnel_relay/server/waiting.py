"""What waits to be passed on, where a link is slower than the one that it comes from."""

from __future__ import annotations

from collections import deque

import attrs

from tunnel_relay.protocol.frames import Frame

# What may wait for such a link: a session's own bound, and a little.
MOST_WAITING = 12 * 1024 * 1024


@attrs.define(eq=False)
class Room:
    """The memory for what waits.

    Attributes:
      most: Bytes that may wait, in all sessions together.
      waiting: Bytes that do.
      ways: Directions of sessions that there are.

    """

    most: int = 512 * 1024 * 1024
    waiting: int = attrs.field(default=0, init=False)
    ways: int = attrs.field(default=0, init=False)

    def has_for(self, frame: Frame, waiting: int) -> bool:
        """Return whether *frame* may wait where so many bytes do.

        Where all memory is taken, each direction of a session may have its share of it: those that have more are to
        blame.
        """
        size = len(frame)
        if self.waiting + size <= self.most:
            return waiting + size <= MOST_WAITING
        return waiting + size <= min(MOST_WAITING, self.most // max(1, self.ways))


@attrs.define(eq=False)
class Waiting:
    """Frames that wait in *room*: a `Source` of them."""

    room: Room
    _frames: deque[Frame] = attrs.field(factory=deque[Frame], init=False)
    bytes: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: Frame) -> None:
        """Let *frame* wait."""
        self._frames.append(frame)
        self._count(len(frame))

    def frames_to_send(self, most: int, now: float) -> list[Frame]:
        """See `Source.frames_to_send`."""
        del now
        taken: list[Frame] = []
        while self._frames and most > 0:
            frame = self._frames.popleft()
            taken.append(frame)
            most -= len(frame)
        self._count(-sum(map(len, taken)))
        return taken

    def drop(self) -> None:
        """Nothing of what waits is sent any more."""
        self._frames.clear()
        self._count(-self.bytes)

    def next_timer(self) -> float | None:
        """See `Source.next_timer`."""
        return None

    def _count(self, size: int) -> None:
        self.bytes += size
        self.room.waiting += size

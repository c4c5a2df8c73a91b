"""Which streams the two ends hold, for their readers have fallen behind: see awg_obfs.quic.notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from awg_obfs.quic.notes import GO_ON_AT, HOLD_AT, Kind, Note


class Filling(Protocol):
    """What of a stream says whether to hold it."""

    @property
    def buffered(self) -> int:
        """How many bytes wait for its reader."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        ...


@attrs.define(eq=False)
class Holding:
    """What the peer asked of us, and what we asked of it.

    Attributes:
      by_peer: The streams on which the peer wants nothing more for now.

    """

    by_peer: set[int] = attrs.field(factory=set[int])
    _by_us: set[int] = attrs.field(factory=set[int])
    _full: set[int] = attrs.field(factory=set[int])

    def __len__(self) -> int:
        """Return how many streams are kept in mind."""
        return len(self.by_peer) + len(self._by_us) + len(self._full)

    def filled(self, stream_id: int, buffered: int) -> None:
        """*buffered* bytes of the stream wait for their reader, who may be about to come."""
        if buffered > HOLD_AT:
            self._full.add(stream_id)

    def take_notes(self, streams: Mapping[int, Filling]) -> list[Note]:
        """Return which streams the peer should hold, and which go on, now that readers have had their turn."""
        notes: list[Note] = []
        for stream_id in self._full - self._by_us:
            stream = streams.get(stream_id)
            if stream is not None and stream.buffered > HOLD_AT and not stream.ended:
                self._by_us.add(stream_id)
                notes.append(Note(Kind.HOLD, stream_id))
        self._full.clear()
        for stream_id in list(self._by_us):
            stream = streams.get(stream_id)
            if stream is None or stream.buffered <= GO_ON_AT:
                self._by_us.discard(stream_id)
                notes.append(Note(Kind.GO_ON, stream_id))
        return notes

"""What one end tells the other about streams, beside QUIC's own frames, on a unidirectional stream of its own.

Holding is flow control for where QUIC's own is out of reach. qh3 opens a stream's window by itself as data arrives,
and can only be held as a whole. A reader that falls behind would then stop all streams of its connection. So the side
that reads tells the other one which streams to hold and which to let go on; what holds for the connection as a whole
is the last resort.

Ends are told of where QUIC's own may have got lost for good: see awg_obfs.quic.ends.

A note is 17 bytes: its kind, the number of the stream, and how many bytes the stream has in all (0 but for its end).
"""

from __future__ import annotations

import enum
import struct

import attrs

from awg_obfs.quic.settings import KIB

# What may wait for a reader before its stream is held, and what must be left of it before the stream goes on.
HOLD_AT = 512 * KIB
GO_ON_AT = 128 * KIB

_NOTE = struct.Struct(">BQQ")


class Kind(enum.IntEnum):
    """What a note says of its stream."""

    GO_ON = 0
    HOLD = 1
    ENDED = 2
    """Nothing follows the first *total* bytes."""


_KINDS = frozenset(map(int, Kind))


@attrs.frozen
class Note:
    """What is said of one stream."""

    kind: Kind
    stream_id: int
    total: int = 0

    def __bytes__(self) -> bytes:
        return _NOTE.pack(self.kind, self.stream_id, self.total)


@attrs.define(eq=False)
class NoteReader:
    """Reads the peer's notes, however they are cut."""

    _rest: bytes = b""

    def feed(self, data: bytes) -> list[Note]:
        """Return the notes that are whole. Those of an unknown kind are passed over."""
        data = self._rest + data
        whole = len(data) - len(data) % _NOTE.size
        self._rest = data[whole:]
        return [
            Note(Kind(kind), stream_id, total)
            for kind, stream_id, total in _NOTE.iter_unpack(data[:whole])
            if kind in _KINDS
        ]

"""Ask the peer to hold a stream back: flow control for where QUIC's own is out of reach.

qh3 opens a stream's window by itself as data arrives, and can only be held as a whole. A reader that falls behind
would then stop all streams of its connection. So the side that reads tells the other one, on a unidirectional stream
of its own, which streams to hold and which to let go on; what holds for the connection as a whole is the last resort.

A message is 9 bytes: 1 (hold) or 0 (go on), and the number of the stream.
"""

from __future__ import annotations

import struct

import attrs

from awg_obfs.quic.settings import KIB

# What may wait for a reader before its stream is held, and what must be left of it before the stream goes on.
HOLD_AT = 512 * KIB
GO_ON_AT = 128 * KIB

_MESSAGE = struct.Struct(">BQ")


def message(stream_id: int, *, hold: bool) -> bytes:
    """Return the message about one stream."""
    return _MESSAGE.pack(hold, stream_id)


@attrs.define(eq=False)
class PauseReader:
    """Reads the peer's messages, however they are cut."""

    _rest: bytes = b""

    def feed(self, data: bytes) -> list[tuple[int, bool]]:
        """Return the streams that *data* speaks of, and whether each is to be held."""
        data = self._rest + data
        whole = len(data) - len(data) % _MESSAGE.size
        self._rest = data[whole:]
        return [(stream_id, bool(hold)) for hold, stream_id in _MESSAGE.iter_unpack(data[:whole])]

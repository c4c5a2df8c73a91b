"""Acknowledgements that ride along with what a stream has to say, sooner than they are due.

Where the two ends talk in turns, a packet of its own for every acknowledgement would come in between: another packet
to seal and open, and a timer to wake for it, half a message's worth of work.
"""

# ruff: noqa: SLF001 -- part of the fast paths: see awg_obfs.quic.fast_connection.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import struct
from typing import cast

from aioquic import tls
from aioquic.quic.recovery import QuicPacketSpace

from awg_obfs.quic.engine import Buffer
from awg_obfs.quic.fast_recovery import SentFrame
from awg_obfs.quic.fast_sending import FastSending

# ACK with one range (RFC 9000, section 19.3): type, largest, delay, no further ranges, first range; long numbers of
# four bytes each.
_FRAME = struct.Struct(">BIIBI")
_ACK = 0x02
_FOUR_BYTES = 0x80000000
_FAR = 1 << 30


class FastAcks(FastSending):
    """A `FastSending` that acknowledges by the way."""

    _flushed_at = 0.0

    def flush(self, now: float) -> list[bytes]:
        """See `FastSending.flush`."""
        self._flushed_at = now
        return super().flush(now)

    def _collect(self, pieces: list[Buffer], frames: list[SentFrame], room: int) -> None:
        space = self._spaces[tls.Epoch.ONE_RTT]
        if space.ack_at is None:
            super()._collect(pieces, frames, room)
            return
        super()._collect(pieces, frames, room - _FRAME.size)
        frame = ack_frame(space, self._flushed_at, self._local_ack_delay_exponent)
        if frames and frame:
            space.ack_at = None
            pieces.insert(0, frame)


def ack_frame(space: QuicPacketSpace, now: float, exponent: int) -> bytes:
    """Return an ACK frame for everything that came; empty where one range does not say it, for aioquic to write.

    A frame that leaves like this is not told when it arrives. aioquic forgets what the peer knows to be acknowledged;
    of a single range there is nothing to forget.
    """
    ranges = cast("list[range]", space.ack_queue._RangeSet__ranges)
    if len(ranges) != 1:
        return b""
    largest = ranges[0].stop - 1
    delay = int((now - (space.largest_received_time or now)) * 1_000_000) >> exponent
    if largest >= _FAR or not 0 <= delay < _FAR:
        return b""
    first = largest - ranges[0].start
    return _FRAME.pack(_ACK, _FOUR_BYTES | largest, _FOUR_BYTES | delay, 0, _FOUR_BYTES | first)

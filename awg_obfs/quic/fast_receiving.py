"""aioquic's receiving side with a fast path for packets that hold STREAM and ACK frames.

A burst of datagrams is taken in one go: the headers are unprotected by one call of the cipher, bookkeeping of packet
numbers and timers is done for runs of packets, and what a stream got is told once. A packet that holds anything else,
or that is odd in any way, goes to aioquic untouched.
"""

# ruff: noqa: SLF001 -- part of the fast paths: see awg_obfs.quic.fast_connection.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import attrs
from aioquic import tls
from aioquic.quic.connection import NetworkAddress
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketSpace
from cryptography.exceptions import InvalidTag

from awg_obfs.quic.engine import Buffer, StreamData
from awg_obfs.quic.fast_acks import FastAcks
from awg_obfs.quic.fast_flight import FRAME, FRAME_FAR, HEADER, STREAM
from awg_obfs.quic.fast_frames import Frame, OddPacketError, parse
from awg_obfs.quic.headers import CONNECTION_ID_LENGTH

_NUMBER_AT = 1 + CONNECTION_ID_LENGTH
# The sample begins four bytes after the start of the packet number, whatever its length.
_SAMPLE_AT = _NUMBER_AT + 4
_SAMPLE = 16
_SHORTEST = _SAMPLE_AT + _SAMPLE
_LONG_HEADER = 0x80
_PHASE_AND_RESERVED = 0x1C

# The first bits of a number tell its length (RFC 9000, section 16).
_FOUR_BYTES, _EIGHT_BYTES, _TWO_BYTES = 0x80, 0xC0, 0x4000
_FOUR_BYTE_VALUE, _EIGHT_BYTE_VALUE = (1 << 30) - 1, (1 << 62) - 1


@attrs.define
class _Run:
    """Packets of a burst whose numbers follow each other, not yet entered into aioquic's books."""

    start: int = -1
    stop: int = -1
    eliciting: bool = False


class FastReceiving(FastAcks):
    """The receiving half of `FastConnection`."""

    def receive_many(self, datagrams: Sequence[Buffer], peer: NetworkAddress, now: float) -> None:
        """See `WindowedConnection.receive_many`."""
        if not self._is_settled():
            super().receive_many(datagrams, peer, now)
            return
        host_cid = self.host_cid
        burst: list[bytes] = []
        for datagram in datagrams:
            packet = bytes(datagram)
            if len(packet) >= _SHORTEST and packet[0] < _LONG_HEADER and packet[1:_NUMBER_AT] == host_cid:
                burst.append(packet)
            else:
                self.receive_datagram(packet, peer, now)
        if burst and self._is_settled():
            self._receive_burst(burst, peer, now)

    def _receive_burst(self, burst: list[bytes], peer: NetworkAddress, now: float) -> None:
        space = self._spaces[tls.Epoch.ONE_RTT]
        crypto = self._cryptos[tls.Epoch.ONE_RTT].recv
        assert crypto.aead is not None
        assert crypto.hp is not None
        masks = crypto.hp._encryptor.update(b"".join([packet[_SAMPLE_AT:_SHORTEST] for packet in burst]))
        decrypt, iv = crypto.aead._aead.decrypt, crypto.aead._iv
        phase = crypto.key_phase << 2
        cid = self.host_cid
        run = _Run()
        fresh: dict[int, StreamData] = {}
        at = -_SAMPLE
        for packet in burst:
            at += _SAMPLE
            first = packet[0] ^ masks[at] & 0x1F
            expected = max(space.expected_packet_number, run.stop)
            if first & 3 == 1:
                # A number of two bytes is what aioquic sends.
                truncated = (packet[9] ^ masks[at + 1]) << 8 | packet[10] ^ masks[at + 2]
                number = _whole_number(truncated, 16, expected)
                body = HEADER.size
                header = HEADER.pack(first, cid, truncated)
            else:
                body = _NUMBER_AT + (first & 3) + 1
                mask = int.from_bytes(masks[at + 1 : at + 1 + body - _NUMBER_AT], "big")
                truncated = int.from_bytes(packet[_NUMBER_AT:body], "big") ^ mask
                number = _whole_number(truncated, 8 * (body - _NUMBER_AT), expected)
                header = bytes((first,)) + cid + truncated.to_bytes(body - _NUMBER_AT, "big")
            if number != run.stop:
                self._enter(run, space, now)
                if number <= space.largest_received_packet and number in space.received_packets:
                    continue
            try:
                # Other keys, and bits that must not be set, are aioquic's to deal with.
                usual = first & _PHASE_AND_RESERVED == phase
                plain = decrypt((iv ^ number).to_bytes(12, "big"), packet[body:], header) if usual else b""
                eliciting = self._take_usual(plain, fresh) or self._take_packet(plain, fresh, space, now)
            except (OddPacketError, IndexError, InvalidTag):
                self._publish(fresh)
                self._enter(run, space, now)
                self.receive_datagram(packet, peer, now)
                if not self._is_settled():
                    return
                continue
            if number != run.stop:
                run.start = number
            run.stop = number + 1
            run.eliciting |= eliciting
        self._publish(fresh)
        self._enter(run, space, now)

    def _take_usual(self, plain: bytes, fresh: dict[int, StreamData]) -> bool:
        """Take a packet that holds but the next bytes of a stream; return whether it was one."""
        size = len(plain)
        if plain[0] != STREAM or size <= FRAME_FAR.size:
            return False
        if plain[5] < _EIGHT_BYTES:
            _, stream_id, offset, length = FRAME.unpack_from(plain)
            begin = FRAME.size
        else:
            _, stream_id, offset, length = FRAME_FAR.unpack_from(plain)
            begin = FRAME_FAR.size
        # The prefixes say how long each number is (RFC 9000, section 16): four bytes, four or eight, two.
        if stream_id >> 30 != 2 or plain[5] < _FOUR_BYTES or length != size - begin | _TWO_BYTES:
            return False
        stream_id &= _FOUR_BYTE_VALUE
        offset &= _FOUR_BYTE_VALUE if begin == FRAME.size else _EIGHT_BYTE_VALUE
        stream = self._streams.get(stream_id)
        if stream is None:
            return False
        receiver, limit = stream.receiver, self._local_max_data
        length = size - begin
        end = offset + length
        if (
            offset != receiver._buffer_start
            or receiver._buffer
            or receiver._final_size is not None
            or end > stream.max_stream_data_local
            or limit.used + length > limit.value
        ):
            return False
        receiver._buffer_start = receiver.highest_offset = end
        limit.used += length
        told = fresh.get(stream_id)
        if told is None:
            fresh[stream_id] = StreamData(stream_id, [plain[begin:]], False)
        else:
            told.chunks.append(plain[begin:])
        return True

    def _take_packet(
        self, plain: bytes, fresh: dict[int, StreamData], space: QuicPacketSpace, now: float
    ) -> bool:
        """Take a packet of STREAM and ACK frames; return whether it asks for an acknowledgement.

        Raises:
          OddPacketError, IndexError: it holds anything else; nothing was taken.

        """
        frames, acks, eliciting = parse(plain)
        if not all(self._is_plain(frame) for frame in frames):
            raise OddPacketError
        for frame in frames:
            self._take(frame, fresh)
        for ranges, delay in acks:
            self._loss.on_acknowledged(
                ranges=ranges,
                ack_delay=(delay << self._remote_ack_delay_exponent) / 1e6,
                now=now,
                space=space,
            )
        return eliciting

    def _is_plain(self, frame: Frame) -> bool:
        """Whether *frame* continues a stream that we know, within its limits."""
        stream = self._streams.get(frame[0])
        if stream is None:
            return False
        end = frame[1] + len(frame[2])
        limit = self._local_max_data
        receiver = stream.receiver
        return (
            receiver._final_size is None
            and end <= stream.max_stream_data_local
            and limit.used + end - receiver.highest_offset <= limit.value
            and not (frame[3] and end < receiver.highest_offset)
        )

    def _take(self, frame: Frame, fresh: dict[int, StreamData]) -> None:
        """Take one STREAM frame that `_is_plain`; what became readable is added to *fresh*."""
        stream_id, offset, data, fin = frame
        receiver = self._streams[stream_id].receiver
        if receiver._final_size is not None:
            # The frame before it in the same packet ended the stream.
            return
        end = offset + len(data)
        if end > receiver.highest_offset:
            self._local_max_data.used += end - receiver.highest_offset
        if offset == receiver._buffer_start and data and not receiver._buffer and not receiver.is_finished:
            receiver._buffer_start = end
            receiver.highest_offset = end
            if fin:
                receiver._final_size = end
                receiver.is_finished = True
        else:
            event = receiver.handle_frame(QuicStreamFrame(data=data, fin=fin, offset=offset))
            if event is None:
                return
            data, fin = event.data, event.end_stream
        told = fresh.get(stream_id)
        if told is None or fin:
            if fin:
                # Nothing may be added to what says that it is the end.
                self._publish(fresh)
            told = fresh[stream_id] = StreamData(stream_id, [data], fin)
        else:
            told.chunks.append(data)

    def _publish(self, fresh: dict[int, StreamData]) -> None:
        """Queue what has become readable as events."""
        if fresh:
            self._events.extend(fresh.values())
            fresh.clear()

    def _enter(self, run: _Run, space: QuicPacketSpace, now: float) -> None:
        """Enter a run of packets into aioquic's books, and begin another one."""
        start, stop = run.start, run.stop
        if start < 0:
            return
        run.start = run.stop = -1
        self._close_at = now + self._idle_timeout()
        self._ack_eliciting_sent_since_receipt = False
        if stop > space.expected_packet_number:
            space.expected_packet_number = stop
        if stop - 1 > space.largest_received_packet:
            space.largest_received_packet = stop - 1
            space.largest_received_time = now
        queue = cast("list[range]", space.ack_queue._RangeSet__ranges)
        if queue and queue[-1].stop == start:
            queue[-1] = range(queue[-1].start, stop)
        elif not queue or queue[-1].stop < start:
            queue.append(range(start, stop))
        else:
            space.ack_queue.add(start, stop)
        if len(queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()
        window = space.received_packets
        window._received.update(range(max(start, stop - window._size), stop))
        # The last one slides the window.
        window.add(stop - 1)
        if run.eliciting and space.ack_at is None:
            space.ack_at = now + self._ack_delay
        run.eliciting = False


def _whole_number(truncated: int, bits: int, expected: int) -> int:
    """Return a packet number of which only the lowest *bits* were sent (RFC 9000, appendix A.3)."""
    window = 1 << bits
    candidate = (expected & -window) | truncated
    if candidate <= expected - window // 2 and candidate < (1 << 62) - window:
        return candidate + window
    if candidate > expected + window // 2 and candidate >= window:
        return candidate - window
    return candidate

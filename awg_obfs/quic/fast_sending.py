"""aioquic's sending side with a fast path for STREAM frames.

aioquic builds each packet by asking every stream whether it has something to say. Here only streams that have
something are asked, a packet is put together from two pieces of bytes, and the headers of a whole flush are protected
by one call of the cipher. Everything else that a packet can hold is still written by aioquic's own methods.
"""

# ruff: noqa: SLF001 -- part of the fast paths: see awg_obfs.quic.fast_connection.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import math

from aioquic import tls
from aioquic._buffer import Buffer as PacketBuffer
from aioquic.quic.connection import QuicConnectionState, QuicReceiveContext
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder, QuicPacketBuilderStop
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from awg_obfs.quic.engine import Buffer
from awg_obfs.quic.fast_flight import HEADER, TAG, Flight, frame_header, frame_overhead
from awg_obfs.quic.fast_recovery import FastRecovery, SentFrame
from awg_obfs.quic.windowed import WindowedConnection

# Less room than this in a packet is not worth another frame.
_SMALLEST_ROOM = 64

# How many packets one stream fills before it is the next one's turn. Streams that alternate packet by packet would
# wake as many readers as there are packets.
_TURN = 12

# Packet numbers of two bytes are told apart over half of their range.
_MOST_IN_FLIGHT = 30_000


class FastSending(WindowedConnection):
    """The sending half of `FastConnection`."""

    _loss: FastRecovery

    def _start_fast_sending(self) -> None:
        # Streams with bytes to send, in the order of their turns.
        self._ready: dict[int, QuicStream] = {}
        # Streams with a reset, a request to stop or a new limit to send.
        self._attention: dict[int, QuicStream] = {}
        # Streams that have ended both ways, but for what the peer has yet to acknowledge.
        self._leaving: dict[int, QuicStream] = {}
        # How many packets the first of `_ready` has filled in its turn.
        self._turn = 0
        # Whether any stream may belong to any of these.
        self._look_at_all = True

    def _is_settled(self) -> bool:
        """Whether the connection does nothing but carry data on its only path."""
        return (
            self._handshake_confirmed
            and self._state is QuicConnectionState.CONNECTED
            and not self._close_pending
            and len(self._network_paths) == 1
            and self._network_paths[0].is_validated
        )

    def _is_unusual(self) -> bool:
        """Whether there is something to send that only aioquic knows how to."""
        return bool(
            self._handshake_done_pending
            or self._retire_connection_ids
            or self._streams_blocked_pending
            or self._network_paths[0].remote_challenges
            or self._cryptos[tls.Epoch.ONE_RTT]._update_key_requested
            or not self._crypto_streams[tls.Epoch.ONE_RTT].sender.buffer_is_empty
            or not all(connection_id.was_sent for connection_id in self._host_cids)
        )

    def flush(self, now: float) -> list[bytes]:
        """Return the datagrams to send now."""
        if not self._is_settled() or self._is_unusual():
            self._look_at_all = True
            return super().flush(now)
        if self._look_at_all or self._loss.lost_others or self._loss.lost:
            self._look()
        if self._leaving:
            self._discard_finished()
        self._pacing_at = None
        datagrams = self._control(now)
        if self._ready:
            self._fill(datagrams, now)
            pacer = self._loss._pacer
            if self._ready and pacer.packet_time is not None and pacer.bucket_time <= 0:
                self._pacing_at = now + pacer.packet_time
        return datagrams

    def _look(self) -> None:
        """Find streams that have something to say."""
        if self._look_at_all or self._loss.lost_others:
            self._look_at_all = self._loss.lost_others = False
            for stream_id, stream in self._streams.items():
                sender = stream.sender
                if not stream.is_blocked and not sender.buffer_is_empty:
                    self._ready[stream_id] = stream
                if (
                    sender.reset_pending
                    or stream.receiver.stop_pending
                    or stream.max_stream_data_local != stream.max_stream_data_local_sent
                ):
                    self._attention[stream_id] = stream
        self._ready.update(self._loss.lost)
        self._loss.lost.clear()

    def _discard_finished(self) -> None:
        """Do what aioquic does with finished streams while it builds a packet."""
        for stream_id, stream in [item for item in self._leaving.items() if item[1].is_finished]:
            del self._leaving[stream_id]
            self._ready.pop(stream_id, None)
            self._attention.pop(stream_id, None)
            if self._streams.pop(stream_id, None) is not None:
                self._streams_queue.remove(stream)
                if bool(stream_id & 1) == self._is_client:
                    # Let the peer open a new stream for each one that closes (RFC 9000, section 4.6).
                    self._stream_limit(stream_id).value += 1

    # -- everything but STREAM frames

    def _control(self, now: float) -> list[bytes]:
        """Return packets with what there is to say beside streams' data."""
        space = self._spaces[tls.Epoch.ONE_RTT]
        limit = self._local_max_streams_bidi
        if not (
            (space.ack_at is not None and space.ack_at <= now)
            or self._attention
            or self._ping_pending
            or self._probe_pending
            or self._datagrams_pending
            or self._local_max_data.value != self._local_max_data.sent
            or limit.sent - limit.used < limit.value - limit.sent
        ):
            return []
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=self._max_datagram_size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            spin_bit=self._spin_bit,
            version=self._version,
        )
        builder.max_flight_bytes = self._loss.congestion_window - self._loss.bytes_in_flight
        if self._probe_pending:
            # Probes may exceed the congestion window (RFC 9002, section 7).
            builder.max_flight_bytes = max(builder.max_flight_bytes, self._max_datagram_size)
        while self._write_control_packet(builder, space, now):
            self._loss._pacer.update_after_send(now=now)
        sent = self._flush_builder(
            builder=builder, network_path=self._network_paths[0], peer_cid=self._peer_cid.cid, now=now
        )
        return [datagram for datagram, _ in sent]

    def _write_control_packet(self, builder: QuicPacketBuilder, space: QuicPacketSpace, now: float) -> bool:
        """Write one packet; return whether another one has to follow."""
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[tls.Epoch.ONE_RTT])
        try:
            if space.ack_at is not None and space.ack_at <= now:
                self._write_ack_frame(builder=builder, space=space, now=now)
            self._write_connection_limits(builder=builder, space=space)
            for stream_id, stream in list(self._attention.items()):
                self._write_stream_limits(builder=builder, space=space, stream=stream)
                if stream.receiver.stop_pending:
                    self._write_stop_sending_frame(builder=builder, stream=stream)
                if stream.sender.reset_pending:
                    self._write_reset_stream_frame(builder=builder, stream=stream)
                del self._attention[stream_id]
            if self._ping_pending:
                self._write_ping_frame(builder, self._ping_pending)
                self._ping_pending.clear()
            if self._probe_pending:
                self._write_ping_frame(builder, comment="probe")
                self._probe_pending = False
            while self._datagrams_pending:
                self._write_datagram_frame(
                    builder=builder,
                    data=self._datagrams_pending[0],
                    frame_type=QuicFrameType.DATAGRAM_WITH_LENGTH,
                )
                self._datagrams_pending.popleft()
        except QuicPacketBuilderStop:
            # The packet is full; if nothing fitted at all, then the congestion window is.
            return not builder.packet_is_empty
        return False

    # -- STREAM frames

    def _fill(self, datagrams: list[bytes], now: float) -> None:
        """Add packets with what streams have to send, as far as windows and pace allow."""
        most = self._packets_allowed(now)
        size = self._max_datagram_size
        room = size - HEADER.size - TAG
        budget = self._loss.congestion_window - self._loss.bytes_in_flight
        flight = Flight(
            self._loss,
            self._cryptos[tls.Epoch.ONE_RTT].send,
            self._peer_cid.cid,
            self._packet_number,
            now,
            spin=self._spin_bit,
        )
        while self._ready:
            allowed = min(most - len(flight.packets), (budget - flight.size) // size)
            if allowed <= 0:
                break
            if self._add_run(flight, room, allowed):
                continue
            pieces: list[Buffer] = []
            frames: list[SentFrame] = []
            self._collect(pieces, frames, room)
            if frames:
                flight.add(pieces, frames)
        if flight.packets:
            flight.finish(datagrams)
            self._register(flight, now)

    def _packets_allowed(self, now: float) -> int:
        """Return how many packets may leave now."""
        outstanding = self._packet_number - self._spaces[tls.Epoch.ONE_RTT].largest_acked_packet
        most = _MOST_IN_FLIGHT - outstanding
        pacer = self._loss._pacer
        if pacer.packet_time is None:
            return most
        pacer.update_bucket(now=now)
        return min(most, math.ceil(pacer.bucket_time / pacer.packet_time))

    def _register(self, flight: Flight, now: float) -> None:
        """Take note of packets that are about to leave."""
        count = len(flight.packets)
        self._packet_number += count
        space = self._spaces[tls.Epoch.ONE_RTT]
        space.sent_packets.update(flight.packets)
        space.ack_eliciting_in_flight += count
        loss = self._loss
        loss._cc.on_bytes_sent(flight.size)
        loss._time_of_last_sent_ack_eliciting_packet = now
        if not self._ack_eliciting_sent_since_receipt:
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = True
        self._network_paths[0].bytes_sent += flight.size
        pacer = loss._pacer
        if pacer.packet_time is not None:
            pacer.bucket_time = max(0.0, pacer.bucket_time - count * pacer.packet_time)

    def _add_run(self, flight: Flight, room: int, allowed: int) -> bool:
        """Add as many full packets of the first stream as its turn allows; return whether there was any."""
        ready = self._ready
        stream_id, stream = next(iter(ready.items()))
        sender = stream.sender
        pending: list[range] = sender._pending._RangeSet__ranges
        if not pending or sender._reset_error_code is not None:
            return False
        start, stop = pending[0].start, pending[0].stop
        length = room - frame_overhead(start)
        # What ends within the run, and a change in the length of the header, are for `_collect`.
        count = min(
            allowed,
            (min(stop - 1, self._sendable_to(stream)) - start) // length,
            _TURN - self._turn if len(ready) > 1 else allowed,
        )
        if count <= 0 or frame_overhead(start + count * length) != frame_overhead(start):
            return False
        flight.add_run(stream, start, length, count)
        end = start + count * length
        pending[0] = range(end, stop)
        self._advance(stream, end)
        self._take_turn(stream_id, count)
        return True

    def _collect(self, pieces: list[Buffer], frames: list[SentFrame], room: int) -> None:
        """Gather frames for one packet with *room* bytes from the streams whose turn it is."""
        ready = self._ready
        while room >= _SMALLEST_ROOM and ready:
            stream_id, stream = next(iter(ready.items()))
            sender = stream.sender
            pending: list[range] = sender._pending._RangeSet__ranges
            if pending and sender._reset_error_code is None:
                start, stop = pending[0].start, pending[0].stop
            elif sender._pending_eof and sender._reset_error_code is None:
                assert sender._buffer_fin is not None
                start = stop = sender._buffer_fin
            else:
                sender.buffer_is_empty = True
                del ready[stream_id]
                continue
            overhead = frame_overhead(start)
            end = min(stop, start + room - overhead, self._sendable_to(stream))
            if end < stop and end <= start:
                # The peer's windows are shut: MAX_DATA and MAX_STREAM_DATA have all streams looked at.
                del ready[stream_id]
                continue
            fin = sender._buffer_fin == end
            length = end - start
            pieces.append(frame_header(stream_id, start, length, fin=fin))
            if length:
                at = start - sender._buffer_start
                pieces.append(sender._buffer[at : at + length])
                if end == stop:
                    del pending[0]
                else:
                    pending[0] = range(end, stop)
                self._advance(stream, end)
            if fin:
                sender._pending_eof = False
            frames.append((stream, start, end, fin))
            room -= overhead + length
            if pending or sender._pending_eof:
                self._take_turn(stream_id, 1)
            else:
                sender.buffer_is_empty = True
                del ready[stream_id]
                self._turn = 0

    def _sendable_to(self, stream: QuicStream) -> int:
        """Return the offset up to which the peer's windows let the stream send."""
        return min(
            stream.sender.highest_offset + self._remote_max_data - self._remote_max_data_used,
            stream.max_stream_data_remote,
        )

    def _advance(self, stream: QuicStream, end: int) -> None:
        """The stream has sent everything before *end*."""
        new = end - stream.sender.highest_offset
        if new > 0:
            self._remote_max_data_used += new
            stream.sender.highest_offset = end

    def _take_turn(self, stream_id: int, packets: int) -> None:
        """The first stream filled *packets*; let the next one have a go once that is enough."""
        if len(self._ready) > 1:
            self._turn += packets
            if self._turn >= _TURN:
                self._turn = 0
                self._ready[stream_id] = self._ready.pop(stream_id)

    # -- what makes streams ready

    def write(self, stream_id: int, data: Buffer, *, end: bool) -> None:
        """See `WindowedConnection.write`."""
        super().write(stream_id, data, end=end)
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.is_blocked and not stream.sender.buffer_is_empty:
            self._ready[stream_id] = stream

    def retire(self, stream_id: int) -> None:
        """Both directions have ended: forget the stream once the peer has acknowledged that."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._leaving[stream_id] = stream

    def consume(self, stream_id: int, amount: int, total: int) -> None:
        """See `WindowedConnection.consume`."""
        super().consume(stream_id, amount, total)
        stream = self._streams.get(stream_id)
        if stream is not None and stream.max_stream_data_local != stream.max_stream_data_local_sent:
            self._attention[stream_id] = stream

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """See `QuicConnection.reset_stream`."""
        super().reset_stream(stream_id, error_code)
        self._attend(stream_id)

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """See `QuicConnection.stop_stream`."""
        super().stop_stream(stream_id, error_code)
        self._attend(stream_id)

    def _attend(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._attention[stream_id] = stream

    def _handle_stop_sending_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: PacketBuffer
    ) -> None:
        super()._handle_stop_sending_frame(context, frame_type, buf)
        self._look_at_all = True

    def _handle_max_data_frame(self, context: QuicReceiveContext, frame_type: int, buf: PacketBuffer) -> None:
        super()._handle_max_data_frame(context, frame_type, buf)
        self._look_at_all = True

    def _handle_max_stream_data_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: PacketBuffer
    ) -> None:
        super()._handle_max_stream_data_frame(context, frame_type, buf)
        self._look_at_all = True

    def _unblock_streams(self, is_unidirectional: bool) -> None:
        super()._unblock_streams(is_unidirectional)
        self._look_at_all = True

"""aioquic's loss recovery, an acknowledgement at a time instead of a packet at a time.

One acknowledgement covers dozens of packets, most of which carried consecutive pieces of one stream. aioquic handles
each packet by itself; here they are gathered, and each sender and the congestion controller hear of them once.
"""

# ruff: noqa: SLF001 -- part of the fast paths: see awg_obfs.quic.fast_connection.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import K_TIME_THRESHOLD, QuicPacketRecovery, QuicPacketSpace
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch

from awg_obfs.quic.congestion import RateControl

# A packet counts as lost once one that left so many packets later has arrived. RFC 9002 (6.1.1) recommends 3, which
# takes every reordering for a loss; here time decides (6.1.2) unless the distance is beyond doubt.
PACKET_THRESHOLD = 128

# stream, first byte, the byte after the last, whether the stream ends there
SentFrame = tuple[QuicStream, int, int, bool]


class StreamPacket:
    """A packet in flight that holds STREAM frames only: aioquic's `QuicSentPacket` in a lighter form."""

    __slots__ = ("frames", "packet_number", "recovery", "sent_bytes", "sent_time")

    epoch = Epoch.ONE_RTT
    in_flight = True
    is_ack_eliciting = True
    is_crypto_packet = False
    packet_type = QuicPacketType.ONE_RTT
    quic_logger_frames: Sequence[dict[str, object]] = ()

    def __init__(
        self,
        recovery: FastRecovery,
        packet_number: int,
        sent_time: float,
        sent_bytes: int,
        frames: list[SentFrame],
    ) -> None:
        self.recovery = recovery
        self.packet_number = packet_number
        self.sent_time = sent_time
        self.sent_bytes = sent_bytes
        self.frames = frames

    @property
    def delivery_handlers(self) -> list[tuple[Callable[..., None], Any]]:
        """What aioquic calls where it handles the packet by itself."""
        return [(self.recovery.on_frame_delivery, frame) for frame in self.frames]


class FastRecovery(QuicPacketRecovery):
    """Loss recovery that knows `StreamPacket`.

    Attributes:
      lost: Streams with bytes to send again, by number.
      lost_others: Whether packets were lost that aioquic built; any stream may have bytes to send again.

    """

    _cc: RateControl

    lost: dict[int, QuicStream]
    lost_others: bool = False

    def on_ack_received(
        self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace
    ) -> None:
        """See `QuicPacketRecovery.on_ack_received`."""
        ranges = [(each.start, each.stop) for each in ack_rangeset]
        self.on_acknowledged(ranges=ranges, ack_delay=ack_delay, now=now, space=space)

    def on_acknowledged(
        self, *, ranges: Sequence[tuple[int, int]], ack_delay: float, now: float, space: QuicPacketSpace
    ) -> None:
        """Take an ACK frame: *ranges* of packet numbers, ascending, each without its stop."""
        largest = ranges[-1][1] - 1
        space.largest_acked_packet = max(space.largest_acked_packet, largest)
        newly = _newly_acked(space.sent_packets, ranges)
        if not newly:
            return
        eliciting = self._settle(newly, space, now)
        last = newly[-1]
        if last.packet_number == largest and eliciting:
            self._measure(now, now - last.sent_time, min(ack_delay, self.max_ack_delay))
        self._detect_loss(now=now, space=space)
        if self.peer_completed_address_validation:
            self._pto_count = 0

    def _settle(self, newly: Sequence[Any], space: QuicPacketSpace, now: float) -> bool:
        """Tell everybody concerned that the packets *newly* acknowledged arrived; return whether any asked for it."""
        sent_packets = space.sent_packets
        eliciting = in_flight = 0
        stream: QuicStream | None = None
        start = stop = 0
        for packet in newly:
            del sent_packets[packet.packet_number]
            if packet.__class__ is StreamPacket:
                eliciting += 1
                in_flight += packet.sent_bytes
                for frame in packet.frames:
                    if frame[0] is stream and frame[1] == stop and not frame[3]:
                        stop = frame[2]
                        continue
                    if stream is not None:
                        _acked(stream, start, stop, fin=False)
                    stream, start, stop, fin = frame
                    if fin:
                        _acked(frame[0], start, stop, fin=True)
                        stream = None
            else:
                eliciting += packet.is_ack_eliciting
                if packet.in_flight:
                    in_flight += packet.sent_bytes
                for handler, args in packet.delivery_handlers:
                    handler(QuicDeliveryState.ACKED, *args)
        if stream is not None:
            _acked(stream, start, stop, fin=False)
        space.ack_eliciting_in_flight -= eliciting
        self._cc.on_bytes_acked(now=now, acked=in_flight, last_sent=newly[-1].sent_time)
        return eliciting > 0

    def _measure(self, now: float, latest: float, ack_delay: float) -> None:
        """Take a sample of the round trip (RFC 9002, section 5.3), as aioquic does."""
        self._rtt_latest = max(latest, 0.001)
        self._rtt_min = min(self._rtt_min, self._rtt_latest)
        if self._rtt_latest > self._rtt_min + ack_delay:
            self._rtt_latest -= ack_delay
        if not self._rtt_initialized:
            self._rtt_first_sample_time = now
            self._rtt_initialized = True
            self._rtt_variance = latest / 2
            self._rtt_smoothed = latest
        else:
            self._rtt_variance = 3 / 4 * self._rtt_variance + 1 / 4 * abs(self._rtt_min - self._rtt_latest)
            self._rtt_smoothed = 7 / 8 * self._rtt_smoothed + 1 / 8 * self._rtt_latest
        self._cc.on_rtt_measurement(now=now, rtt=latest)
        self._pacer.update_rate(congestion_window=self._cc.congestion_window, smoothed_rtt=self._rtt_smoothed)

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        delay = K_TIME_THRESHOLD * (
            max(self._rtt_latest, self._rtt_smoothed) if self._rtt_initialized else self._rtt_initial
        )
        largest = space.largest_acked_packet
        too_old = now - delay
        lost: list[QuicSentPacket] = []
        space.loss_time = None
        for number, packet in space.sent_packets.items():
            if number > largest:
                break
            sent_at = packet.sent_time or 0.0
            if sent_at > too_old and number > largest - PACKET_THRESHOLD:
                # Packets are kept in the order in which they left.
                space.loss_time = sent_at + delay
                break
            lost.append(packet)
        if lost:
            congested = self._in_persistent_congestion(packets=lost)
            self._on_packets_lost(now=now, packets=lost, persistent_congestion=congested, space=space)

    def _on_packets_lost(
        self,
        *,
        congestion_event: bool = True,
        now: float,
        packets: Iterable[QuicSentPacket],
        persistent_congestion: bool = False,
        space: QuicPacketSpace,
    ) -> None:
        packets = list(packets)
        if any(packet.is_ack_eliciting and not isinstance(packet, StreamPacket) for packet in packets):
            self.lost_others = True
        super()._on_packets_lost(
            congestion_event=congestion_event,
            now=now,
            packets=packets,
            persistent_congestion=persistent_congestion,
            space=space,
        )

    def on_frame_delivery(
        self, delivery: QuicDeliveryState, stream: QuicStream, start: int, stop: int, fin: bool
    ) -> None:
        """Take the news of one STREAM frame."""
        stream.sender.on_data_delivery(delivery, start, stop, fin)
        if delivery is not QuicDeliveryState.ACKED and stream.stream_id is not None:
            self.lost[stream.stream_id] = stream


def _newly_acked(sent: dict[int, QuicSentPacket], ranges: Sequence[tuple[int, int]]) -> list[Any]:
    """Return the packets within *ranges* that are still in flight, in the order in which they left."""
    newly: list[Any] = []
    remaining = iter(ranges)
    start, stop = next(remaining)
    for number, packet in sent.items():
        while number >= stop:
            following = next(remaining, None)
            if following is None:
                return newly
            start, stop = following
        if number >= start:
            newly.append(packet)
    return newly


def _acked(stream: QuicStream, start: int, stop: int, *, fin: bool) -> None:
    """Tell the sender of *stream* that these bytes arrived."""
    sender = stream.sender
    if fin or start != sender._buffer_start or len(sender._acked) or sender._reset_error_code is not None:
        sender.on_data_delivery(QuicDeliveryState.ACKED, start, stop, fin)
    else:
        sender._buffer_start = stop
        del sender._buffer[: stop - start]

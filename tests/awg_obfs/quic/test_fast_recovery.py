"""Acknowledgements and losses, a range at a time."""

from __future__ import annotations

from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from awg_obfs.quic.congestion import NAME, register
from awg_obfs.quic.fast_recovery import PACKET_THRESHOLD, FastRecovery, StreamPacket

PIECE = 100


class Sent:
    """A stream whose bytes were sent in packets of `PIECE` bytes each."""

    def __init__(self, count: int) -> None:
        register()
        self.recovery = FastRecovery(
            congestion_control_algorithm=NAME,
            initial_rtt=0.1,
            max_datagram_size=1350,
            peer_completed_address_validation=True,
            send_probe=lambda: None,
        )
        self.recovery.lost = {}
        self.space = QuicPacketSpace()
        self.recovery.spaces = [self.space]
        self.stream = QuicStream(stream_id=0)
        self.stream.sender.write(bytes(count * PIECE), end_stream=True)
        for number in range(count):
            frame = self.stream.sender.get_frame(PIECE)
            assert frame is not None
            last = number == count - 1
            packet = StreamPacket(
                self.recovery,
                number,
                1.0 + number / 1000,
                PIECE,
                [(self.stream, number * PIECE, (number + 1) * PIECE, last)],
            )
            self.space.sent_packets[number] = packet  # pyright: ignore[reportArgumentType]
            self.space.ack_eliciting_in_flight += 1
        self.recovery._cc.on_bytes_sent(count * PIECE)

    def acknowledge(self, *ranges: tuple[int, int], now: float = 1.2) -> None:
        self.recovery.on_acknowledged(ranges=ranges, ack_delay=0.0, now=now, space=self.space)


def test_one_acknowledgement_settles_everything() -> None:
    sent = Sent(20)
    sent.acknowledge((0, 20))
    assert not sent.space.sent_packets
    assert sent.space.ack_eliciting_in_flight == 0
    assert sent.recovery.bytes_in_flight == 0
    assert sent.stream.sender.is_finished


def test_acknowledgements_in_pieces_come_to_the_same() -> None:
    sent = Sent(20)
    for ranges in (((15, 20),), ((0, 5), (10, 20)), ((3, 4),), ((0, 20),)):
        sent.acknowledge(*ranges)
    assert not sent.space.sent_packets
    assert sent.recovery.bytes_in_flight == 0
    assert sent.stream.sender.is_finished


def test_what_is_older_than_the_round_trip_allows_is_lost_and_named() -> None:
    sent = Sent(20)
    # The round trip is 82 ms, and 9/8 of it ago packet 7 had just left.
    sent.acknowledge((18, 19), now=1.1)
    assert set(sent.space.sent_packets) == set(range(8, 20)) - {18}
    assert sent.recovery.lost == {0: sent.stream}
    assert not sent.recovery.lost_others
    frame = sent.stream.sender.get_frame(10 * PIECE)
    assert frame is not None
    assert (frame.offset, len(frame.data)) == (0, 8 * PIECE)


def test_a_little_reordering_is_no_loss() -> None:
    sent = Sent(20)
    sent.acknowledge((10, 20))
    assert set(sent.space.sent_packets) == set(range(10))
    assert sent.space.loss_time is not None
    assert not sent.recovery.lost


def test_a_distance_beyond_doubt_is() -> None:
    count = 2 * PACKET_THRESHOLD
    sent = Sent(count)
    sent.acknowledge((count - 1, count), now=1.0 + count / 1000)
    assert sent.recovery.lost


def test_the_round_trip_is_measured() -> None:
    sent = Sent(1)
    sent.acknowledge((0, 1), now=1.25)
    assert sent.recovery._rtt_smoothed == 0.25  # pyright: ignore[reportUnknownMemberType]

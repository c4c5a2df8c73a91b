"""aioquic's connection with windows that grow as the reader takes data, not as it arrives.

aioquic doubles MAX_DATA and MAX_STREAM_DATA on arrival, so that an idle reader's memory is the peer's to spend. The
two methods overridden here hold the windows where `consume` puts them. What is used of aioquic's private names is
held down by a test.
"""

# ruff: noqa: SLF001 -- see above: there is no public way to hold the windows.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import Limit, NetworkAddress, QuicConnection, QuicConnectionState
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketSpace
from aioquic.quic.stream import QuicStream

from awg_obfs.quic.engine import Buffer, EngineStatistics
from awg_obfs.quic.errors import Cause, ConnectionFailure

# A new limit is worth a frame once it is this part of the window ahead of the one last sent.
_WORTH_TELLING = 4

# How long the pacer may let a burst be. epoll rounds sleeps up to the millisecond, so a bucket of less would leave the
# path idle between two of them.
BURST_SECONDS = 0.003

# How much faster than the congestion window per round trip to send (RFC 9002, section 7.7 recommends this).
PACING_GAIN = 1.25


class _Silence:
    """Stands in for aioquic's logger: this library writes no log, and every call to it would cost time."""

    def debug(self, *_: object) -> None: ...
    def info(self, *_: object) -> None: ...
    def warning(self, *_: object) -> None: ...


class BurstPacer(QuicPacketPacer):
    """A pacer whose bucket holds at least `BURST_SECONDS` of sending."""

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """Take over a new congestion window (bytes) and round trip (seconds)."""
        super().update_rate(int(congestion_window * PACING_GAIN), smoothed_rtt)
        self.bucket_max = max(self.bucket_max, BURST_SECONDS)


class WindowedConnection(QuicConnection):
    """A `QuicConnection` whose reader opens the windows."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        streams: int,
        original_destination_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration, original_destination_connection_id=original_destination_connection_id
        )
        self._logger = _Silence()
        self._loss._logger = None
        self._loss._pacer = BurstPacer(max_datagram_size=configuration.max_datagram_size)
        self._local_max_streams_bidi = Limit(
            frame_type=QuicFrameType.MAX_STREAMS_BIDI, name="max_streams_bidi", value=streams
        )
        self._consumed = 0
        self._closing = False

    @property
    def ending(self) -> ConnectionFailure | None:
        """Why the connection ends, as soon as that is settled: aioquic tells only after the closing period."""
        event = self._close_event
        if event is None:
            return None
        if self._closing:
            cause = Cause.CLOSED
        elif self._state is QuicConnectionState.DRAINING:
            cause = Cause.PEER_CLOSED
        elif event.error_code == QuicErrorCode.INTERNAL_ERROR and event.reason_phrase == "Idle timeout":
            return ConnectionFailure(Cause.IDLE)
        else:
            cause = Cause.PROTOCOL
        return ConnectionFailure(cause, event.error_code, event.reason_phrase)

    @property
    def has_path(self) -> bool:
        """Whether there is anybody to send to yet."""
        return bool(self._network_paths)

    @property
    def loss_timer(self) -> float | None:
        """When loss detection is due; part of what `get_timer` returns."""
        return self._loss_at

    def goodbye(self, code: int, reason: str) -> None:
        """Close the connection of our own accord."""
        self._closing = self._close_event is None
        self.close(error_code=code, reason_phrase=reason)

    def revive(self, now: float) -> None:
        """Probe at once, though the congestion window be full, and forget how long the path was silent."""
        self._loss._pto_count = 0
        self._loss.reschedule_data(now=now)

    @property
    def datagrams_waiting(self) -> int:
        """How many DATAGRAM frames wait to leave."""
        return len(self._datagrams_pending)

    @property
    def measured(self) -> EngineStatistics:
        """How the connection fares."""
        loss = self._loss
        round_trip = cast("float", loss._rtt_smoothed)
        return EngineStatistics(round_trip, loss.congestion_window, loss.bytes_in_flight)

    def knows(self, stream_id: int) -> bool:
        """Return whether the stream is open in any direction."""
        return stream_id in self._streams

    def write(self, stream_id: int, data: Buffer, *, end: bool) -> None:
        """Queue *data*; a stream that was reset, by either side, takes none."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.sender._reset_error_code is None and not stream.sender.is_finished:
            stream.sender.write(bytes(data), end_stream=end)

    def receive_many(self, datagrams: Sequence[Buffer], peer: NetworkAddress, now: float) -> None:
        """Take what came in."""
        for datagram in datagrams:
            self.receive_datagram(bytes(datagram), peer, now)

    def flush(self, now: float) -> list[bytes]:
        """Return the datagrams to send now."""
        return [datagram for datagram, _ in self.datagrams_to_send(now)]

    def retire(self, stream_id: int) -> None:
        """Both directions of the stream have ended; aioquic notices by itself."""

    def unsent(self, stream_id: int) -> int:
        """Return how many bytes of the stream wait to leave for the first time."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender.buffer_is_empty:
            return 0
        return stream.sender._buffer_stop - stream.sender.highest_offset

    def undelivered(self, stream_id: int) -> int:
        """Return how many bytes a reset stream has used of the windows that will never be delivered."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.receiver.highest_offset - stream.receiver.starting_offset()

    def consume(self, stream_id: int, amount: int, total: int) -> None:
        """Open the windows: the stream's reader took *amount* bytes, which makes *total* from its start."""
        self._consumed += amount
        limit, window = self._local_max_data, self._configuration.max_data
        if self._consumed + window - limit.value >= window // _WORTH_TELLING:
            limit.value = self._consumed + window
        stream = self._streams.get(stream_id)
        if stream is None or stream.receiver.is_finished:
            return
        window = self._configuration.max_stream_data
        if total + window - stream.max_stream_data_local >= window // _WORTH_TELLING:
            stream.max_stream_data_local = total + window

    # -- what aioquic calls while it builds packets

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        limit = self._local_max_data
        # aioquic doubles the limit once half of it is used.
        used, limit.used = limit.used, 0
        try:
            super()._write_connection_limits(builder, space)
        finally:
            limit.used = used

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        receiver = stream.receiver
        if stream.max_stream_data_local_sent == stream.max_stream_data_local or receiver.is_finished:
            return
        highest, receiver.highest_offset = receiver.highest_offset, 0
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            receiver.highest_offset = highest

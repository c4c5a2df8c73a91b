"""qh3's connection, told in the driver's words and held when its readers are far behind.

qh3 opens the windows of what its core has handed out. Not asking the core for more is therefore a way to hold the
peer back, though only for the connection as a whole; see awg_obfs.quic.notes for the rest. The methods overridden
here do what qh3's do, less its logs and its support for resumption, which nobody uses here.
"""


# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qh3 import tls
from qh3._hazmat import QuicConnectionCore
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import NetworkAddress, QuicConnection
from qh3.quic.tls_bridge import QuicTlsBridge, QuicTlsBridgeError

from awg_obfs.quic.deferral import Deferral
from awg_obfs.quic.ends import Ends
from awg_obfs.quic.engine import (
    Buffer,
    DatagramReceived,
    EndInDoubt,
    EngineEvent,
    PingAcknowledged,
    StopSending,
    StreamData,
    StreamReset,
    Terminated,
)
from awg_obfs.quic.errors import Cause, ConnectionFailure
from awg_obfs.quic.feed import Feed

# How long an acknowledgement may wait, in seconds.
ACK_DELAY = 0.001

_ACK_DELAY_EXPONENT = 3
_CONNECTION_IDS = 8
_MAX_STREAMS_BIDI = 0x08
_INTERNAL_ERROR = 0x01

# A core in any other state has nothing to say but why.
_CONNECTED = ("first_flight", "connected")


@dataclass
class HeldConfiguration(QuicConfiguration):
    """A `QuicConfiguration` that says how many streams the peer may have open."""

    streams: int = 100


class StreamsBridge(QuicTlsBridge):
    """qh3's TLS, allowing the peer as many streams as we want and not as many as qh3 does."""

    def serialize_transport_parameters(self) -> bytes:
        """See `QuicTlsBridge`, which calls it while it is made."""
        assert isinstance(self.configuration, HeldConfiguration)
        return with_parameter(
            super().serialize_transport_parameters(), _MAX_STREAMS_BIDI, self.configuration.streams
        )


class HeldConnection(QuicConnection):
    """A `QuicConnection` that hands out no more than *limit* bytes beyond what was read."""

    def __init__(
        self,
        *,
        configuration: HeldConfiguration,
        limit: int,
        original_destination_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration, original_destination_connection_id=original_destination_connection_id
        )
        self._streams_allowed = configuration.streams
        self._limit = limit
        self._unread = 0
        self._fresh: dict[int, StreamData] = {}
        self._news: list[EngineEvent] = []
        self._ended = False
        self._ends = Ends()
        self._deferral = Deferral()
        self._feed = Feed(self._give, self.get_send_buffer_size)
        self._leaving: list[bytes] = []

    @property
    def core(self) -> QuicConnectionCore | None:
        """What moves packets; None before the first one."""
        return self._core

    @property
    def established(self) -> bool:
        """Whether the handshake is complete."""
        return self._handshake_complete

    def receive_burst(self, datagrams: list[bytes], peer: NetworkAddress, now: float) -> None:
        """Take what came in."""
        if self._core is None or not self._handshake_complete:
            self.receive_many_datagrams(datagrams, peer, now)
        else:
            self._call_core(self._core.receive_many_datagrams, datagrams, peer, now)
            self._deferral.received()
            self._ask_core(now)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self._core is not None:
            self._call_core(self._core.handle_timer, now)
            self._ask_core(now)

    def flush(self, now: float) -> list[bytes]:
        """Return the datagrams to send now."""
        datagrams, self._leaving = self._leaving, []
        core = self._core
        if core is None:
            return datagrams
        before = len(datagrams)
        poll = core.poll_transmit
        try:
            while (transmit := poll(now)) is not None:
                datagrams.append(transmit[0])
            while self._feed and self._handshake_complete and core.state in _CONNECTED:
                count = len(datagrams)
                self._feed.give_out(core.congestion_window - core.bytes_in_flight)
                while (transmit := poll(now)) is not None:
                    datagrams.append(transmit[0])
                if len(datagrams) == count:
                    break
        except ValueError as exc:
            # The core has lost track of a packet that it has built, and with that of some stream.
            core.close(_INTERNAL_ERROR, None, b"")
            self._end(ConnectionFailure(Cause.PROTOCOL, _INTERNAL_ERROR, str(exc)))
            while (transmit := poll(now)) is not None:
                datagrams.append(transmit[0])
        room = core.congestion_window - core.bytes_in_flight
        self._deferral.flushed(len(datagrams) - before, blocked=room < self._configuration.max_datagram_size)
        return datagrams

    def read(self, amount: int) -> None:
        """The readers took *amount* bytes."""
        self._unread -= amount

    def take_news(self) -> list[EngineEvent]:
        """Return what has happened; asks the core for more where readers have caught up."""
        if self._core is not None and self._core.has_events:
            self._drain_core()
        self._publish()
        if self._ends.any and self._core is not None:
            for stream_id, total in self._ends.take_doubtful(self._core.loss_total):
                self._news.append(EndInDoubt(stream_id, total))
        news, self._news = self._news, []
        return news

    def open_numbered(self, *, unidirectional: bool) -> int:
        """Open a stream and return its number."""
        return self._open_stream(unidirectional)

    def write(self, stream_id: int, data: Buffer, *, end: bool) -> None:
        """Queue *data*, and the end of the stream after it; a stream that was reset takes none."""
        core = self._core
        if core is None or not self._handshake_complete or core.can_send_stream(stream_id):
            self._feed.add(stream_id, data, end=end)

    def unsent(self, stream_id: int) -> int:
        """Return how many bytes of the stream wait to leave for the first time."""
        return self._feed.size(stream_id) + self.get_send_buffer_size(stream_id)

    def _give(self, stream_id: int, data: bytes, end: bool) -> None:
        core = self._require_core()
        if not core.can_send_stream(stream_id):
            return
        self.send_stream_data(stream_id, data, end)
        self._ends.wrote(stream_id, len(data))
        if end:
            self._deferral.ended(stream_id)
            self._ends.ended(stream_id, core.loss_total)

    def give_up(self, stream_id: int, code: int) -> None:
        """Reset our direction of the stream, unless that has ended."""
        self._feed.forget(stream_id)
        if self._core is not None and self._core.can_send_stream(stream_id):
            self._ends.forget(stream_id)
            self._deferral.ended(stream_id)
            self.reset_stream(stream_id, code)

    # -- what qh3 calls

    def _create_core(self, remote_addr: NetworkAddress, initial_dcid: bytes, now: float) -> None:
        configuration = self._configuration
        self._core = QuicConnectionCore(
            self._is_client,
            self._version or 0,
            ("0.0.0.0", 0),  # noqa: S104 -- a placeholder: the core does not bind.
            remote_addr,
            self.host_cid,
            initial_dcid,
            # The session has made sure of the peer's address. Were it not so, the core would miscount what an
            # aioquic client sent (whose Initial datagrams are filled up after their packet), and then fail.
            True,
            2 if self._is_client else _CONNECTION_IDS,
            configuration.max_datagram_size,
            configuration.probe_datagram_size,
            configuration.idle_timeout,
            _ACK_DELAY_EXPONENT,
            configuration.max_datagram_frame_size,
            None,
            configuration.max_data,
            0,
            configuration.max_stream_data,
            0,
            0,
            0,
            configuration.max_stream_data,
            self._streams_allowed,
            self._streams_allowed,
            0,
            0,
            configuration.initial_rtt,
            ACK_DELAY,
            now,
        )
        self._applied_transport_parameters = None
        self._pre_handshake_state_replayed = False

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        bridge = StreamsBridge(
            self._configuration,
            version=self._version or 0,
            local_initial_source_connection_id=self.host_cid,
            remote_initial_source_connection_id=remote_source_cid,
            original_destination_connection_id=self._original_destination_connection_id,
            version_change_handler=self._set_version,
        )
        self._tls = bridge
        return bridge

    def _ask_core(self, now: float) -> None:
        """Take what there is to hear, having sent first what may keep it waiting."""
        if not self._deferral.due:
            self._leaving = self.flush(now)
        self._drain_core()

    def _drain_core(self) -> None:
        core = self._require_core()
        if not self._deferral.due and core.state in _CONNECTED:
            return
        poll = core.next_event
        while self._unread < self._limit or core.state not in _CONNECTED:
            event = poll()
            if event is None:
                self._deferral.asked()
                return
            if event[0] == "stream_data":
                _, stream_id, data, end = event
                self._unread += len(data)
                told = self._fresh.get(stream_id)
                if told is None or end:
                    if end:
                        self._publish()
                    self._fresh[stream_id] = StreamData(stream_id, [data], end)
                else:
                    told.chunks.append(data)
            else:
                self._publish()
                self._heed(event)

    def _heed(self, event: tuple[Any, ...]) -> None:
        """Deal with an event of the core that is not data."""
        core = self._require_core()
        match event:
            case ("crypto_data", epoch, offset, data):
                self._heed_crypto(epoch, offset, data)
            case ("stream_reset", stream_id, code, _):
                self._news.append(StreamReset(stream_id, code))
            case ("stream_finished", stream_id):
                self._created_local_stream_ids.discard(stream_id)
                self._ends.forget(stream_id)
                self._deferral.finished(stream_id)
            case ("stop_sending", stream_id, code):
                # The core resets the stream in answer.
                self._feed.forget(stream_id)
                self._ends.forget(stream_id)
                self._deferral.ended(stream_id)
                self._news.append(StopSending(stream_id, code))
            case ("datagram", data):
                self._news.append(DatagramReceived(data))
            case ("ping_acknowledged", uid):
                self._news.append(PingAcknowledged(uid))
            case ("handshake_done",):
                self._handshake_confirmed = True
                core.handshake_confirmed()
            case ("peer_closed", _, code, _, reason):
                self._end(ConnectionFailure(Cause.PEER_CLOSED, code, reason.decode("utf8", "replace")))
            case ("protocol_error", code, _, reason):
                self._end(ConnectionFailure(Cause.PROTOCOL, code, str(reason)))
            case ("connection_terminated", code, _, reason):
                # Every other end was told of before.
                words = reason.decode("utf8", "replace")
                idle = not code or "idle" in words.lower()
                self._end(
                    ConnectionFailure(Cause.IDLE) if idle else ConnectionFailure(Cause.PROTOCOL, code, words)
                )
            case _:
                pass

    def _heed_crypto(self, epoch: int, offset: int, data: bytes) -> None:
        core, bridge = self._require_core(), self._tls
        assert bridge is not None
        try:
            bridge.receive_crypto(tls.Epoch(epoch), data, offset, version=core.version)
            self._drain_tls()
        except QuicTlsBridgeError as exc:
            self._call_core(core.close, exc.error_code, int(exc.frame_type), exc.reason_phrase.encode())
            self._end(ConnectionFailure(Cause.PROTOCOL, exc.error_code, exc.reason_phrase))

    def _end(self, failure: ConnectionFailure) -> None:
        if not self._ended:
            self._ended = True
            self._news.append(Terminated(failure))

    def _publish(self) -> None:
        """Queue what has become readable as events."""
        if self._fresh:
            self._news.extend(self._fresh.values())
            self._fresh.clear()


def with_parameter(parameters: bytes, key: int, value: int) -> bytes:
    """Return serialized transport parameters (RFC 9000, section 18) with a number set to *value*."""
    written = bytearray()
    at = 0
    while at < len(parameters):
        start = at
        name, at = _number(parameters, at)
        length, at = _number(parameters, at)
        at += length
        if name != key:
            written += parameters[start:at]
    encoded = (value | 1 << 31).to_bytes(4, "big")
    return bytes(written) + bytes((key, len(encoded))) + encoded


def _number(data: Sequence[int] | bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at *at*, and what follows it (RFC 9000, section 16)."""
    length = 1 << (data[at] >> 6)
    value = data[at] & 0x3F
    for byte in data[at + 1 : at + length]:
        value = value << 8 | byte
    return value, at + length

"""The engine that aioquic drives."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from aioquic._buffer import Buffer as PacketBuffer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from aioquic.tls import CipherSuite

from awg_obfs.quic import congestion
from awg_obfs.quic.certificate import ServerCertificate
from awg_obfs.quic.engine import (
    Buffer,
    DatagramReceived,
    EngineEvent,
    EngineStatistics,
    Established,
    PingAcknowledged,
    StopSending,
    StreamData,
    StreamReset,
    Terminated,
)
from awg_obfs.quic.headers import CONNECTION_ID_LENGTH
from awg_obfs.quic.settings import ALPN, QuicSettings
from awg_obfs.quic.windowed import WindowedConnection

# aioquic asks who sent a datagram; here it is always the one peer of the session, wherever that is.
_PEER = ("peer", 0)

# Wake this long after the loss timer. Exactly on it, rounding can make aioquic do nothing and ask for the same
# instant again, for ever if the clock is a mock. RFC 9002 (6.1.2) allows timers this coarse.
GRANULARITY = 0.001

# The longest DATAGRAM frame accepted: all that fits a packet.
_LARGEST_FRAME = 65535


class AioquicEngine:
    """Translates between `Engine` and aioquic; see `Engine`."""

    def __init__(
        self,
        settings: QuicSettings,
        max_datagram_size: int,
        certificate: ServerCertificate | None,
        connection_class: type[WindowedConnection] = WindowedConnection,
    ) -> None:
        """Make a server's engine where there is a *certificate*, else a client's."""
        congestion.register()
        self._settings = settings
        self._class = connection_class
        self._configuration = QuicConfiguration(
            is_client=certificate is None,
            alpn_protocols=[ALPN],
            connection_id_length=CONNECTION_ID_LENGTH,
            congestion_control_algorithm=congestion.NAME,
            idle_timeout=settings.idle_timeout,
            max_data=settings.connection_window,
            max_stream_data=settings.stream_window,
            max_datagram_size=max_datagram_size,
            max_datagram_frame_size=_LARGEST_FRAME,
            # The fast paths count on AES; its keys here need no more than 128 bits, inside the session's own.
            cipher_suites=[CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384],
            # Safe only inside a session: see awg_obfs.quic.certificate.
            verify_mode=ssl.CERT_NONE,
        )
        self._quic: WindowedConnection | None = None
        self._terminated = False
        if certificate is None:
            self._quic = connection_class(configuration=self._configuration, streams=settings.streams)
        else:
            self._configuration.certificate = certificate.certificate
            self._configuration.private_key = certificate.private_key

    def connect(self, now: float) -> None:
        """See `Engine.connect`."""
        self._connection.connect(_PEER, now)

    def receive(self, datagrams: Sequence[Buffer], now: float) -> None:
        """See `Engine.receive`."""
        if self._quic is None and not any(self._start(bytes(datagram)) for datagram in datagrams):
            return
        self._connection.receive_many(datagrams, _PEER, now)

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """See `Engine.datagrams_to_send`."""
        if self._quic is None or not self._quic.has_path:
            return []
        return self._quic.flush(now)

    def next_timer(self) -> float | None:
        """See `Engine.next_timer`."""
        if self._quic is None or not self._quic.has_path:
            return None
        timer = self._quic.get_timer()
        if timer is not None and timer == self._quic.loss_timer:
            return timer + GRANULARITY
        return timer

    def handle_timer(self, now: float) -> None:
        """See `Engine.handle_timer`."""
        self._connection.handle_timer(now)

    def take_events(self) -> list[EngineEvent]:
        """See `Engine.take_events`."""
        quic = self._quic
        if quic is None:
            return []
        taken: list[EngineEvent] = []
        data: StreamData | None = None
        while (event := quic.next_event()) is not None:
            if isinstance(event, StreamData):
                # The fast paths say it as the driver wants to hear it.
                data = None
                taken.append(event)
                continue
            if isinstance(event, events.StreamDataReceived):
                if data is not None and data.stream_id == event.stream_id and not event.end_stream:
                    data.chunks.append(event.data)
                    continue
                data = StreamData(event.stream_id, [event.data], event.end_stream)
                taken.append(data)
                continue
            data = None
            translated = self._translate(event)
            if translated is not None:
                taken.append(translated)
        if not self._terminated and (ending := quic.ending) is not None:
            self._terminated = True
            taken.append(Terminated(ending))
        return taken

    def _translate(self, event: events.QuicEvent) -> EngineEvent | None:
        match event:
            case events.StreamReset():
                lost = self._connection.undelivered(event.stream_id)
                self._connection.consume(event.stream_id, lost, 0)
                return StreamReset(event.stream_id, event.error_code)
            case events.StopSendingReceived():
                return StopSending(event.stream_id, event.error_code)
            case events.DatagramFrameReceived():
                return DatagramReceived(event.data)
            case events.PingAcknowledged():
                return PingAcknowledged(event.uid)
            case events.HandshakeCompleted():
                return Established()
            case _:
                return None

    @property
    def wants_pauses(self) -> bool:
        """See `Engine.wants_pauses`."""
        return False

    def open_stream(self, *, unidirectional: bool = False) -> int:
        """See `Engine.open_stream`."""
        quic = self._connection
        stream_id = quic.get_next_available_stream_id(unidirectional)
        quic.send_stream_data(stream_id, b"")
        return stream_id

    def send_stream(self, stream_id: int, data: Buffer, *, end: bool) -> None:
        """See `Engine.send_stream`."""
        self._connection.write(stream_id, data, end=end)

    def unsent(self, stream_id: int) -> int:
        """See `Engine.unsent`."""
        return self._connection.unsent(stream_id)

    def consumed(self, stream_id: int, amount: int, total: int) -> None:
        """See `Engine.consumed`."""
        self._connection.consume(stream_id, amount, total)

    def reset_stream(self, stream_id: int, code: int) -> None:
        """See `Engine.reset_stream`."""
        if self._connection.knows(stream_id):
            self._connection.reset_stream(stream_id, code)

    def stop_stream(self, stream_id: int, code: int) -> None:
        """See `Engine.stop_stream`."""
        if self._connection.knows(stream_id):
            self._connection.stop_stream(stream_id, code)

    def retire(self, stream_id: int) -> None:
        """See `Engine.retire`."""
        self._connection.retire(stream_id)

    def send_datagram(self, data: bytes) -> bool:
        """See `Engine.send_datagram`."""
        if self._connection.datagrams_waiting >= self._settings.datagrams:
            return False
        self._connection.send_datagram_frame(data)
        return True

    def send_ping(self, uid: int) -> None:
        """See `Engine.send_ping`."""
        self._connection.send_ping(uid)

    def revive(self, now: float) -> None:
        """See `Engine.revive`."""
        self._connection.revive(now)

    def close(self, code: int, reason: str) -> None:
        """See `Engine.close`."""
        if self._quic is not None:
            self._quic.goodbye(code, reason)

    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`."""
        return EngineStatistics(0.0, 0, 0) if self._quic is None else self._quic.measured

    def _start(self, datagram: bytes) -> bool:
        """Make the server's connection from the client's first packet."""
        try:
            header = pull_quic_header(PacketBuffer(data=datagram), host_cid_length=CONNECTION_ID_LENGTH)
        except ValueError:
            return False
        if header.packet_type is not QuicPacketType.INITIAL:
            return False
        self._quic = self._class(
            configuration=self._configuration,
            streams=self._settings.streams,
            original_destination_connection_id=header.destination_cid,
        )
        return True

    @property
    def _connection(self) -> WindowedConnection:
        assert self._quic is not None, "a server has a connection once a client has spoken"
        return self._quic

"""The engine that qh3 drives: packets, recovery and congestion control in Rust."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Sequence

from qh3._hazmat import QuicConnectionCore
from qh3.quic.connection import QuicConnectionError
from qh3.quic.events import HandshakeCompleted
from qh3.tls import CipherSuite, load_pem_private_key, load_pem_x509_certificates

from awg_obfs.quic.certificate import ServerCertificate
from awg_obfs.quic.engine import Buffer, EngineEvent, EngineStatistics, Established, Terminated
from awg_obfs.quic.errors import Cause, ConnectionFailure
from awg_obfs.quic.headers import CONNECTION_ID_LENGTH, begins_connection, destination
from awg_obfs.quic.held import HeldConfiguration, HeldConnection
from awg_obfs.quic.settings import ALPN, QuicSettings

# qh3 asks who sent a datagram; here it is always the one peer of the session, wherever that is.
_PEER = ("127.0.0.1", 1)

# See awg_obfs.quic.aioquic_engine: timers are coarse on purpose.
GRANULARITY = 0.001

_LARGEST_FRAME = 65535

# What qh3 calls the timer of losses and probes.
_LOSS = "loss_detection"

# What qh3's core is in between the handshake and the end.
_ESTABLISHED = "connected"

# RFC 9002, section 6.2.1, wants each probe timeout to be twice the one before. qh3's is not where the path dies between
# the handshake and its confirmation: it would send 500 datagrams a second. So timeouts double here, from the
# granularity on, while nothing is heard; so many times at most.
MOST_DOUBLINGS = 11

# Losses both ways, with much to send both ways, can tie two cores up: either holds its acknowledgements back behind
# what it has no room to send (awg_obfs.quic.feed). Then the window is full, and what the other end says answers what
# was sent `LONG_AGO`, or nothing at all. If that goes on for `PATIENCE` seconds, it does for ever: the connection ends.
# They speak less and less often then; while the round trip is as it should be, a silence may be the path's, and counts
# for `SILENCE` seconds of those.
SMALL_WINDOW = 16
LONG_AGO = 0.5
PATIENCE = 5.0
SILENCE = 2.6
_INTERNAL_ERROR = 0x01

# A probe that nobody waits for.
_NOBODY = 0


class Qh3Engine:
    """Translates between `Engine` and qh3; see `Engine`."""

    def __init__(
        self, settings: QuicSettings, max_datagram_size: int, certificate: ServerCertificate | None
    ) -> None:
        """Make a server's engine where there is a *certificate*, else a client's."""
        self._settings = settings
        self._configuration = HeldConfiguration(
            streams=settings.streams,
            is_client=certificate is None,
            alpn_protocols=[ALPN],
            connection_id_length=CONNECTION_ID_LENGTH,
            idle_timeout=settings.idle_timeout,
            max_data=settings.connection_window,
            max_stream_data=settings.stream_window,
            max_datagram_size=max_datagram_size,
            probe_datagram_size=False,
            max_datagram_frame_size=_LARGEST_FRAME,
            cipher_suites=[CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384],
            # Safe only inside a session: see awg_obfs.quic.certificate.
            verify_mode=ssl.CERT_NONE,
            verify_hostname=False,
        )
        self._quic: HeldConnection | None = None
        # DATAGRAM frames that wait for the congestion window, and how many bytes of others qh3 has not sent yet.
        self._datagrams: deque[bytes] = deque()
        self._handed = 0
        self._failure: ConnectionFailure | None = None
        # Timeouts since the peer was heard, and before when there is no other.
        self._timeouts = 0
        self._quiet_until = 0.0
        # For how many seconds nothing that was heard has helped; when that was last, and the round trip then.
        self._helpless = 0.0
        self._heard_at = 0.0
        self._round_trip = 0.0
        if certificate is None:
            self._quic = self._make(None)
        else:
            self._configuration.certificate = load_pem_x509_certificates(certificate.certificate_pem())[0]
            self._configuration.private_key = load_pem_private_key(certificate.private_key_pem())

    def _make(self, original: bytes | None) -> HeldConnection:
        return HeldConnection(
            configuration=self._configuration,
            limit=self._settings.connection_window,
            original_destination_connection_id=original,
        )

    def connect(self, now: float) -> None:
        """See `Engine.connect`."""
        self._connection.connect(_PEER, now)

    def receive(self, datagrams: Sequence[Buffer], now: float) -> None:
        """See `Engine.receive`."""
        self._timeouts, self._quiet_until = 0, 0.0
        burst = [bytes(datagram) for datagram in datagrams]
        if self._quic is None:
            first = next((datagram for datagram in burst if begins_connection(datagram)), None)
            if first is None:
                return
            self._quic = self._make(destination(first))
        try:
            self._quic.receive_burst(burst, _PEER, now)
        except QuicConnectionError as exc:
            self._failure = ConnectionFailure(Cause.PROTOCOL, exc.error_code, exc.reason_phrase)
        self._judge(now)

    def _judge(self, now: float) -> None:
        """Give up where nothing that was heard has helped for a while."""
        core = self._connection.core
        if core is None or self._failure is not None:
            return
        silence, self._heard_at = now - self._heard_at, now
        # Whatever acknowledges anything changes the round trip.
        round_trip = core.smoothed_rtt or 0.0
        helped, self._round_trip = round_trip != self._round_trip, round_trip
        if self._is_late(core):
            self._helpless += silence
        elif self._is_full(core) and not helped and core.congestion_window <= self._small_window:
            self._helpless += min(silence, SILENCE)
        elif round_trip <= LONG_AGO:
            self._helpless = 0.0
        if self._helpless >= PATIENCE:
            self._failure = ConnectionFailure(Cause.PROTOCOL, _INTERNAL_ERROR, "qh3 has tied itself up")
            self._connection.close(_INTERNAL_ERROR, None, "")

    def _is_late(self, core: QuicConnectionCore) -> bool:
        return self._is_full(core) and (core.smoothed_rtt or 0.0) > LONG_AGO

    def _is_full(self, core: QuicConnectionCore) -> bool:
        return core.bytes_in_flight + self._configuration.max_datagram_size > core.congestion_window

    @property
    def _small_window(self) -> int:
        return SMALL_WINDOW * self._configuration.max_datagram_size

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """See `Engine.datagrams_to_send`."""
        quic = self._quic
        if quic is None:
            return []
        if not self._datagrams or quic.core is None or quic.core.state != _ESTABLISHED:
            return quic.flush(now)
        leaving: list[bytes] = []
        while self._hand_over(quic.core):
            flushed = quic.flush(now)
            if not flushed:
                break
            leaving += flushed
            self._handed = max(0, self._handed - sum(map(len, flushed)))
        return leaving or quic.flush(now)

    def _hand_over(self, core: QuicConnectionCore) -> bool:
        """Give qh3 the DATAGRAM frames that may leave now; return whether there were any.

        qh3 keeps without a bound what exceeds the congestion window, and does not tell how much that is.
        """
        room = core.congestion_window - core.bytes_in_flight - self._handed
        any_left = False
        while self._datagrams and len(self._datagrams[0]) <= room:
            data = self._datagrams.popleft()
            room -= len(data)
            self._handed += len(data)
            self._connection.send_datagram_frame(data)
            any_left = True
        return any_left

    def next_timer(self) -> float | None:
        """See `Engine.next_timer`."""
        if self._quic is None or self._quic.core is None:
            return None
        core = self._quic.core
        timer = core.get_timer()
        if timer is None:
            return None
        kind, at = timer
        if kind == _LOSS:
            at = max(at + GRANULARITY, self._quiet_until)
        # Its own timers may be minutes away then.
        return min(at, self._heard_at + PATIENCE) if self._is_late(core) and self._failure is None else at

    def handle_timer(self, now: float) -> None:
        """See `Engine.handle_timer`."""
        core = self._connection.core
        if core is not None and self._is_late(core) and now >= self._heard_at + PATIENCE:
            self._judge(now)
        timer = None if core is None else core.get_timer()
        if timer is not None and timer[0] == _LOSS and timer[1] <= now:
            self._timeouts = min(self._timeouts + 1, MOST_DOUBLINGS)
            self._quiet_until = now + GRANULARITY * 2**self._timeouts
        self._connection.handle_timer(now)

    def take_events(self) -> list[EngineEvent]:
        """See `Engine.take_events`."""
        quic = self._quic
        if quic is None:
            return []
        taken = quic.take_news()
        while (event := quic.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                # Nothing that follows the handshake can come before it.
                taken.insert(0, Established())
        if self._failure is not None:
            taken.append(Terminated(self._failure))
        return taken

    @property
    def wants_pauses(self) -> bool:
        """See `Engine.wants_pauses`."""
        return True

    def open_stream(self, *, unidirectional: bool = False) -> int:
        """See `Engine.open_stream`."""
        return self._connection.open_numbered(unidirectional=unidirectional)

    def send_stream(self, stream_id: int, data: Buffer, *, end: bool) -> None:
        """See `Engine.send_stream`."""
        self._connection.write(stream_id, data, end=end)

    def unsent(self, stream_id: int) -> int:
        """See `Engine.unsent`."""
        return self._connection.unsent(stream_id)

    def consumed(self, stream_id: int, amount: int, total: int) -> None:
        """See `Engine.consumed`."""
        del stream_id, total
        self._connection.read(amount)

    def reset_stream(self, stream_id: int, code: int) -> None:
        """See `Engine.reset_stream`."""
        self._connection.give_up(stream_id, code)

    def stop_stream(self, stream_id: int, code: int) -> None:
        """See `Engine.stop_stream`."""
        try:
            self._connection.stop_stream(stream_id, code)
        except (QuicConnectionError, ValueError):
            # It has ended meanwhile, and its end waits to be asked for.
            return

    def retire(self, stream_id: int) -> None:
        """See `Engine.retire`."""

    def send_datagram(self, data: bytes) -> bool:
        """See `Engine.send_datagram`."""
        if len(self._datagrams) >= self._settings.datagrams:
            return False
        self._datagrams.append(data)
        return True

    def send_ping(self, uid: int) -> None:
        """See `Engine.send_ping`."""
        self._connection.send_ping(uid)

    def revive(self, now: float) -> None:
        """See `Engine.revive`."""
        del now
        self._connection.send_ping(_NOBODY)

    def close(self, code: int, reason: str) -> None:
        """See `Engine.close`."""
        if self._quic is not None:
            self._quic.close(code, None, reason)

    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`."""
        core = None if self._quic is None else self._quic.core
        if core is None:
            return EngineStatistics(0.0, 0, 0)
        return EngineStatistics(core.smoothed_rtt or 0.0, core.congestion_window, core.bytes_in_flight)

    @property
    def _connection(self) -> HeldConnection:
        assert self._quic is not None, "a server has a connection once a client has spoken"
        return self._quic

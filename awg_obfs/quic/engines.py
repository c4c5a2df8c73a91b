"""Which engine runs a connection."""

from __future__ import annotations

from awg_obfs.quic.aioquic_engine import AioquicEngine
from awg_obfs.quic.certificate import ServerCertificate
from awg_obfs.quic.engine import Engine
from awg_obfs.quic.fast_connection import FastConnection
from awg_obfs.quic.settings import SMALLEST_DATAGRAM, EngineKind, QuicSettings
from awg_obfs.quic.windowed import WindowedConnection


def create_engine(
    settings: QuicSettings, max_datagram_size: int, certificate: ServerCertificate | None
) -> Engine:
    """Return a new engine: a server's where there is a *certificate*, else a client's.

    Raises:
      ValueError: the path carries less than QUIC needs.

    """
    if max_datagram_size < SMALLEST_DATAGRAM:
        raise ValueError(
            f"QUIC needs datagrams of {SMALLEST_DATAGRAM} bytes; the path carries {max_datagram_size}"
        )
    kind = WindowedConnection if settings.engine is EngineKind.AIOQUIC else FastConnection
    return AioquicEngine(settings, max_datagram_size, certificate, kind)

"""Which engine runs a connection."""

from __future__ import annotations

from awg_obfs.quic.aioquic_engine import AioquicEngine
from awg_obfs.quic.certificate import ServerCertificate
from awg_obfs.quic.engine import Engine
from awg_obfs.quic.fast_connection import FastConnection
from awg_obfs.quic.fast_trial import are_fast_paths_usable
from awg_obfs.quic.settings import SMALLEST_DATAGRAM, EngineKind, QuicSettings
from awg_obfs.quic.windowed import WindowedConnection

try:
    from awg_obfs.quic.qh3_engine import Qh3Engine
except ImportError:  # the extra `fast` is not installed
    Qh3Engine = None


def choose_engine(wanted: EngineKind) -> EngineKind:
    """Return which engine runs where *wanted* is asked for: the fastest that is there where any will do.

    Raises:
      ValueError: it is not there.

    """
    if wanted is EngineKind.QH3 and Qh3Engine is None:
        raise ValueError('qh3 is not installed: install session-proxy with the extra "fast"')
    if wanted is EngineKind.AUTO and Qh3Engine is not None:
        return EngineKind.QH3
    if wanted is EngineKind.AUTO or wanted is EngineKind.AIOQUIC_FAST:
        return EngineKind.AIOQUIC_FAST if are_fast_paths_usable() else EngineKind.AIOQUIC
    return wanted


def create_engine(
    settings: QuicSettings, max_datagram_size: int, certificate: ServerCertificate | None
) -> Engine:
    """Return a new engine: a server's where there is a *certificate*, else a client's.

    Raises:
      ValueError: the path carries less than QUIC needs, or the engine asked for is not there.

    """
    if max_datagram_size < SMALLEST_DATAGRAM:
        raise ValueError(
            f"QUIC needs datagrams of {SMALLEST_DATAGRAM} bytes; the path carries {max_datagram_size}"
        )
    kind = choose_engine(settings.engine)
    if kind is EngineKind.QH3 and Qh3Engine is not None:
        return Qh3Engine(settings, max_datagram_size, certificate)
    connection_class = FastConnection if kind is EngineKind.AIOQUIC_FAST else WindowedConnection
    return AioquicEngine(settings, max_datagram_size, certificate, connection_class)

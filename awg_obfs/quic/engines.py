"""Which engine runs a connection.

Each end chooses for itself, for both speak standard QUIC and what counts is who sends. Where any engine will do:

* qh3, where it is installed (the extra `fast`) and the path is short. It needs half the CPU time of the others, but
  its congestion control is CUBIC, in compiled code, and takes every loss for a full queue: at 50 ms and 1 % of loss it
  sends less than 0.5 MB/s where aioquic under ours (awg_obfs.quic.congestion) reaches 6 to 12. On a path of less than
  `SHORT` that matters little: what a loss costs is won back in a few round trips.
* else aioquic with the fast paths (awg_obfs.quic.fast_connection), where its version is the one they were made for;
* else aioquic as it comes.

What a path is like is known before its first connection: the session has exchanged keys over it, and measured how long
the answer took. Where a connection has ended because QUIC went wrong, the next ones are aioquic's (`settings_after`).
"""

from __future__ import annotations

import attrs

from awg_obfs.errors import NarrowPathError
from awg_obfs.paths import DatagramPath
from awg_obfs.quic.aioquic_engine import AioquicEngine
from awg_obfs.quic.certificate import ServerCertificate
from awg_obfs.quic.engine import Engine
from awg_obfs.quic.errors import Cause, ConnectionFailure
from awg_obfs.quic.fast_connection import FastConnection
from awg_obfs.quic.fast_trial import are_fast_paths_usable
from awg_obfs.quic.settings import SMALLEST_DATAGRAM, EngineKind, QuicSettings
from awg_obfs.quic.windowed import WindowedConnection

try:
    from awg_obfs.quic.qh3_engine import Qh3Engine
except ImportError:  # the extra `fast` is not installed
    Qh3Engine = None


# A path with a shorter round trip than this, in seconds, leads to the same machine or over cables of the same network;
# most of it is what the two ends need for a handshake.
SHORT = 0.005


def choose_engine(wanted: EngineKind, round_trip: float | None) -> EngineKind:
    """Return which engine runs where *wanted* is asked for.

    Args:
      wanted: Which one, or any.
      round_trip: What the path takes, in seconds; None where that is not known.

    Raises:
      ValueError: it is not there.

    """
    if wanted is EngineKind.QH3 and Qh3Engine is None:
        raise ValueError('qh3 is not installed: install session-proxy with the extra "fast"')
    short = round_trip is not None and round_trip < SHORT
    if wanted is EngineKind.AUTO and Qh3Engine is not None and short:
        return EngineKind.QH3
    if wanted is EngineKind.AUTO or wanted is EngineKind.AIOQUIC_FAST:
        return EngineKind.AIOQUIC_FAST if are_fast_paths_usable() else EngineKind.AIOQUIC
    return wanted


def settings_after(failure: ConnectionFailure | None, settings: QuicSettings) -> QuicSettings:
    """Return what the next connection to a peer should have, where one with *settings* ended by *failure*."""
    if failure is None or failure.cause is not Cause.PROTOCOL or settings.engine is not EngineKind.AUTO:
        return settings
    return attrs.evolve(settings, engine=EngineKind.AIOQUIC_FAST)


def create_engine(
    settings: QuicSettings, path: DatagramPath, certificate: ServerCertificate | None
) -> Engine:
    """Return a new engine for *path*: a server's where there is a *certificate*, else a client's.

    Raises:
      NarrowPathError: the path carries less than QUIC needs.
      ValueError: the engine asked for is not there.

    """
    max_datagram_size = path.max_datagram_size
    if max_datagram_size < SMALLEST_DATAGRAM:
        raise NarrowPathError(
            f"QUIC needs datagrams of {SMALLEST_DATAGRAM} bytes; the path carries {max_datagram_size}"
        )
    kind = choose_engine(settings.engine, path.round_trip)
    if kind is EngineKind.QH3 and Qh3Engine is not None:
        return Qh3Engine(settings, max_datagram_size, certificate)
    connection_class = FastConnection if kind is EngineKind.AIOQUIC_FAST else WindowedConnection
    return AioquicEngine(settings, max_datagram_size, certificate, connection_class)

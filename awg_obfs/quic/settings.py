"""How a QUIC connection behaves: seconds and bytes."""

from __future__ import annotations

import enum

import attrs

KIB = 1024
MIB = 1024 * KIB

# RFC 9000, section 14: a path that carries less cannot carry QUIC.
SMALLEST_DATAGRAM = 1200

# What both ends have to speak, so that neither mistakes the other for a web server.
ALPN = "sproxy-awg/1"


class EngineKind(enum.StrEnum):
    """Which QUIC implementation runs a connection; the two ends need not agree."""

    AUTO = "auto"
    """The one that is fastest on the path, of those that are installed: see awg_obfs.quic.engines."""
    AIOQUIC = "aioquic"
    """aioquic as it comes."""
    AIOQUIC_FAST = "aioquic-fast"
    """aioquic with our fast paths, where its version is the one that they were written for."""
    QH3 = "qh3"


@attrs.frozen(kw_only=True)
class QuicSettings:
    """Limits and intervals of one QUIC connection.

    Attributes:
      engine: Which implementation runs the connection.
      idle_timeout: Silence after which the connection and its streams are given up. Longer than the blackouts
        that a transfer should survive.
      stream_window: What a stream may receive before its reader has taken any of it.
      connection_window: What all streams together may; the memory that the peer can make us hold.
      send_buffer: What a stream accepts before any of it has left.
      streams: How many streams the peer may have open at once.
      datagrams: How many DATAGRAM frames wait for a reader, or for their turn to leave; more are dropped.
      probe_after: Silence after which a client asks the server for a sign of life; 0 never asks.
      silent_after: Silence after which the path counts as dead.

    """

    engine: EngineKind = EngineKind.AUTO
    idle_timeout: float = 60.0
    stream_window: int = 4 * MIB
    connection_window: int = 16 * MIB
    send_buffer: int = 256 * KIB
    streams: int = 1024
    datagrams: int = 512
    probe_after: float = 1.0
    silent_after: float = 2.0

"""How an SSH session behaves: seconds and bytes."""

from __future__ import annotations

import attrs

KIB = 1024
MIB = 1024 * KIB


@attrs.frozen(kw_only=True)
class SshSettings:
    """Limits and intervals of one SSH session.

    Attributes:
      keepalive_interval: Silence after which the peer is asked for a sign of life.
      keepalive_timeout: How long it may take to give one, or to finish a key exchange, before it counts as dead.
      window: What a channel may receive before its reader has taken any of it (RFC 4254, section 5.2).
      window_limit: What that grows to where the reader keeps up and the round trip is long.
      window_budget: How much all channels together may grow; what a hostile server can make us hold.
      packet: The longest piece of data that we accept in one message.
      rekey_bytes: New keys after this many bytes in one direction (RFC 4253, section 9 recommends a gigabyte),
      rekey_seconds: or after this time.
      compression: Whether to compress, where the server can: it pays on slow links only.

    """

    keepalive_interval: float = 15.0
    keepalive_timeout: float = 30.0
    window: int = 2 * MIB
    window_limit: int = 16 * MIB
    window_budget: int = 128 * MIB
    packet: int = 64 * KIB
    rekey_bytes: int = 1024 * MIB
    rekey_seconds: float = 3600.0
    compression: bool = False

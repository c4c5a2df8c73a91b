"""TAI64N stamps, which keep an initiation from being played again (WireGuard paper, section 5.1)."""

from __future__ import annotations

# TAI was 10 seconds ahead of UTC in 1970; WireGuard ignores the leap seconds since.
EPOCH = (1 << 62) + 10

# The reference blurs its stamps to 16.8 ms, so that they tell less about the sender's clock.
WHITENED = 0xFFFFFF

LENGTH = 12


def stamp(unix_time_ns: int) -> bytes:
    """Return the 12-byte stamp of a Unix time in nanoseconds; stamps compare as bytes do."""
    seconds, nanoseconds = divmod(unix_time_ns, 1_000_000_000)
    return (seconds + EPOCH).to_bytes(8, "big") + (nanoseconds & ~WHITENED).to_bytes(4, "big")


def later_stamp(stamp: bytes) -> bytes:
    """Return the next stamp after *stamp* that the clock could have given."""
    return (int.from_bytes(stamp, "big") + WHITENED + 1).to_bytes(LENGTH, "big")

"""Each counter once: the window that refuses what was received before (RFC 6479)."""

from __future__ import annotations

# The reference has 128 words of 64 bits, one of which is always being emptied.
SLOTS = 8192
WINDOW = SLOTS - 64


class ReplayWindow:
    """Remembers which of the last `WINDOW` counters have come.

    A byte for each counter instead of a bit: 8 KiB for every session, and marking one is a single store.
    """

    __slots__ = ("_seen", "highest")

    def __init__(self) -> None:
        self._seen = bytearray(SLOTS)
        self.highest = -1

    def is_new(self, counter: int) -> bool:
        """Tell whether *counter* may still be accepted."""
        if counter > self.highest:
            return True
        return self.highest - counter <= WINDOW and not self._seen[counter % SLOTS]

    def mark(self, counter: int) -> None:
        """Accept a *counter* that `is_new`. Only once the packet has been authenticated."""
        skipped = counter - self.highest - 1
        if skipped >= 0:
            if skipped:
                self._clear_before(counter, skipped)
            self.highest = counter
        self._seen[counter % SLOTS] = 1

    def _clear_before(self, counter: int, skipped: int) -> None:
        if skipped >= SLOTS:
            self._seen = bytearray(SLOTS)
            return
        end = counter % SLOTS
        start = end - skipped
        if start < 0:
            self._seen[start:] = bytes(-start)
            start = 0
        self._seen[start:end] = bytes(end - start)

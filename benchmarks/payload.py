"""The bytes that are moved, and how both ends make and check them without becoming the bottleneck.

Sending is ``sendfile`` from memory, so the kernel passes page references on. Timed transfers are received
with ``MSG_TRUNC`` (tcp(7): the bytes are counted and dropped without a copy), but for one read in every
`SAMPLE_EVERY` bytes, which is compared. Transfers that are *checked* compare every byte.
"""

from __future__ import annotations

import os
import random
import socket

import attrs

# A period that no buffer size in use divides, so that bytes lost, repeated or swapped always show.
PERIOD = 65_521
READ_SIZE = 1 << 20
SAMPLE_EVERY = 16 << 20

_PERIODS = 1 + (8 << 20) // PERIOD
PATTERN = random.Random(20_240_924).randbytes(PERIOD) * _PERIODS


class CorruptedError(Exception):
    """The bytes that arrived are not the bytes that were sent."""


@attrs.define(eq=False)
class Source:
    """The pattern in an anonymous file, ready for ``sendfile``."""

    _fd: int = attrs.field(init=False, factory=lambda: _anonymous_file(PATTERN))

    def send(self, sink: socket.socket, position: int, count: int) -> int:
        """Send up to *count* bytes from stream position *position*; return how many went."""
        offset = position % PERIOD
        return os.sendfile(sink.fileno(), self._fd, offset, min(count, len(PATTERN) - offset))


def _anonymous_file(content: bytes) -> int:
    fd = os.memfd_create("pattern")
    os.write(fd, content)
    return fd


def read_buffer() -> bytearray:
    """Return a buffer for `Counter`."""
    return bytearray(READ_SIZE)


@attrs.define(eq=False)
class Counter:
    """Receives the pattern, counts it, and compares all of it or samples.

    Many may share a *buffer*: what is in it counts from a read to its comparison only.
    """

    checked: bool
    _buffer: bytearray
    position: int = 0
    _next_sample: int = 0

    def receive(self, source: socket.socket, most: int) -> int:
        """Take up to *most* bytes off *source*; return how many (0: it ended).

        Raises:
          CorruptedError: they were other bytes than the pattern's.

        """
        most = min(most, READ_SIZE)
        if not self.checked and self.position < self._next_sample:
            count = source.recv_into(self._buffer, most, socket.MSG_TRUNC)
        else:
            count = source.recv_into(self._buffer, most)
            self._compare(count)
            self._next_sample = self.position + SAMPLE_EVERY
        self.position += count
        return count

    def _compare(self, count: int) -> None:
        start = self.position % PERIOD
        if bytes(memoryview(self._buffer)[:count]) != PATTERN[start : start + count]:
            raise CorruptedError(f"wrong bytes after position {self.position}")

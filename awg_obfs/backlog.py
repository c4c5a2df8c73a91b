"""What waits for room in the kernel's buffer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import attrs
import trio

from awg_obfs.protocol.address import Address
from awg_obfs.protocol.outbox import Outgoing

# The kernel's buffer holds megabytes itself, so these are a few flushes of a fast connection. More would only be
# late: those whose datagrams are dropped send them again, and more slowly.
MAX_WAITING_BYTES = 512 * 1024

Send = Callable[[Address, Sequence[bytes]], int]
"""Sends datagrams to an address, and returns for how many there was room."""


@attrs.define(eq=False)
class Backlog:
    """Datagrams in the order in which they are to leave; the newest are dropped when there are too many bytes."""

    dropped: int = attrs.field(default=0, init=False)
    """How many datagrams were."""
    _waiting: deque[Outgoing] = attrs.field(factory=deque[Outgoing], init=False)
    _bytes: int = attrs.field(default=0, init=False)
    _crowded: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def wait_crowded(self) -> None:
        """Wait until something waits."""
        await self._crowded.wait()

    def add(self, outgoing: Outgoing) -> None:
        """Have *outgoing* wait behind the others, or drop it."""
        size = sum(map(len, outgoing.datagrams))
        if self._bytes + size > MAX_WAITING_BYTES:
            self.dropped += len(outgoing.datagrams)
            return
        self._waiting.append(outgoing)
        self._bytes += size
        self._crowded.set()

    def send(self, send: Send) -> None:
        """Give what waits to *send*, as far as there is room."""
        while self._waiting:
            outgoing = self._waiting[0]
            datagrams = outgoing.datagrams
            sent = send(outgoing.address, datagrams)
            self._bytes -= sum(map(len, datagrams[:sent]))
            if sent < len(datagrams):
                del datagrams[:sent]
                return
            self._waiting.popleft()
        if self._crowded.is_set():
            self._crowded = trio.Event()

    def clear(self) -> None:
        """Drop all."""
        self._waiting.clear()
        self._bytes = 0

"""A time limit that many wait under at the same time, for the price of one timer.

A cancel scope for each client's handshake would be a sixth of what setting up its connection costs.
"""

from __future__ import annotations

import contextlib
import socket

import attrs
import trio

from session_proxy.outbound.socket_stream import PlainSocketStream


@attrs.define(eq=False)
class Patience:
    """Who may be waited for, each for *limit* seconds from when that began.

    All have the same limit, so who came first is late first, and nobody is late earlier than that.
    """

    limit: float
    _until: dict[PlainSocketStream, float] = attrs.field(
        factory=dict[PlainSocketStream, float], init=False, repr=False
    )

    def begin(self, near: PlainSocketStream) -> None:
        """Begin to wait for what is read from *near*."""
        self._until[near] = trio.current_time() + self.limit

    def end(self, near: PlainSocketStream) -> bool:
        """Wait for *near* no more; return whether it was in time."""
        return self._until.pop(near, None) is not None

    async def run(self) -> None:
        """Let reading from who is late meet an end of file, until cancelled."""
        while True:
            await trio.sleep_until(next(iter(self._until.values()), trio.current_time() + self.limit))
            now = trio.current_time()
            late = [near for near, until in self._until.items() if until <= now]
            for near in late:
                del self._until[near]
                # It may have left already.
                with contextlib.suppress(OSError):
                    near.socket.shutdown(socket.SHUT_RD)

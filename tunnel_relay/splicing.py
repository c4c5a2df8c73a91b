"""A stream that can be joined to a socket without anybody in between."""

from __future__ import annotations

import socket
from abc import abstractmethod
from collections.abc import Callable

import trio

Moved = Callable[[int], None]
"""Told how many bytes have just moved."""


class SpliceableStream(trio.abc.HalfCloseableStream):
    """A stream that reads from and writes to a non-blocking socket itself, as fast as it can.

    What a relay would do with `receive_some` and `send_all`, without a task's turn and a copy per piece. The
    socket stays its owner's, who must not use the same direction of it meanwhile.
    """

    @abstractmethod
    async def pour(self, sink: socket.socket, moved: Moved) -> None:
        """Write everything that arrives to *sink*, until the end of the stream. *sink* is not shut down.

        Cancelling it may lose what has arrived.

        Raises:
          trio.BrokenResourceError: the stream or *sink* broke.
          trio.ClosedResourceError: one of them was closed here.
          trio.BusyResourceError: another task is receiving.

        """

    @abstractmethod
    async def soak(self, source: socket.socket, moved: Moved) -> None:
        """Send everything that can be read from *source*, until its end. The end is not passed on.

        Cancelling it may lose what has been read. Raises what `pour` does.
        """

"""What a channel has received and nobody has taken yet."""

from __future__ import annotations

import os
import socket
from collections import deque
from itertools import islice

# Pieces are copied together up to this: each object would weigh far more than a few bytes, and a peer may send a
# window full of single ones.
_COALESCED = 64 * 1024
# Buffers for one writev: far below IOV_MAX, and more than a socket takes at a time.
_PIECES = 64


class Inbox:
    """A queue of bytes; `size` says how many."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self.size = 0
        self._pieces: deque[memoryview | bytearray] = deque()

    @property
    def pieces(self) -> int:
        """How many objects hold the bytes."""
        return len(self._pieces)

    def put(self, data: memoryview) -> None:
        """Append a copy of *data*."""
        self.size += len(data)
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) < _COALESCED:
            last += data
        else:
            self._pieces.append(bytearray(data))

    def lend(self, data: memoryview) -> None:
        """Append *data* itself, which stays as it is until `keep` is called at the latest."""
        self.size += len(data)
        self._pieces.append(data)

    def keep(self) -> None:
        """Copy what was lent."""
        pieces, self._pieces = self._pieces, deque()
        self.size = 0
        for piece in pieces:
            self.put(memoryview(piece))

    def take(self, limit: int) -> bytes:
        """Remove and return the first *limit* bytes, or all there are."""
        pieces = self._pieces
        if self.size <= limit:
            data = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
            self.clear()
            return data
        taken: list[memoryview | bytearray] = []
        room = limit
        while room and len(pieces[0]) <= room:
            room -= len(pieces[0])
            taken.append(pieces.popleft())
        if room:
            taken.append(memoryview(pieces[0])[:room])
        data = b"".join(taken)
        if room:
            pieces[0] = memoryview(bytes(memoryview(pieces[0])[room:]))
        self.size -= limit
        return data

    def write_to(self, sink: socket.socket) -> int:
        """Write as much to *sink* as it takes without waiting; return how much that was. Raises `OSError`."""
        written = 0
        try:
            while self.size:
                count = os.writev(sink.fileno(), list(islice(self._pieces, _PIECES)))
                written += count
                self._drop(count)
        except BlockingIOError:
            pass
        return written

    def clear(self) -> None:
        """Remove everything."""
        self._pieces.clear()
        self.size = 0

    def _drop(self, count: int) -> None:
        self.size -= count
        pieces = self._pieces
        while count:
            first = pieces[0]
            if len(first) > count:
                pieces[0] = memoryview(first)[count:]
                return
            count -= len(first)
            pieces.popleft()

"""Log lines to a file descriptor, without ever waiting for whoever reads it.

A proxy must not stop because its log does: the reader of a pipe may stall, a disk may be full, a terminal may
be gone. Lines that cannot be written now wait in a bounded backlog; beyond it they are dropped and counted.
"""

from __future__ import annotations

import math
import os
import select
from collections import deque

import attrs
import trio

# A writable pipe takes this much without blocking (PIPE_BUF, pipe(7)); a longer line goes in pieces.
PIECE = select.PIPE_BUF

# Some 5000 lines: half a minute of a busy proxy while its log shipper restarts.
MAX_BACKLOG = 1 << 20


@attrs.define(eq=False)
class LineSink:
    """Writes lines to *fd*, which stays open. *dropped* counts the lines that were lost."""

    fd: int
    dropped: int = 0
    _backlog: deque[bytes] = attrs.field(factory=deque[bytes], init=False, repr=False)
    _backlog_size: int = attrs.field(default=0, init=False)
    _poll: select.poll = attrs.field(init=False, repr=False)
    _waiting: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLOUT)

    @property
    def backlog(self) -> int:
        """How many bytes wait to be written."""
        return self._backlog_size

    def write(self, line: str) -> None:
        """Write *line* and a newline now if the descriptor takes it, else soon."""
        data = f"{line}\n".encode(errors="backslashreplace")
        if self._backlog_size + len(data) > MAX_BACKLOG:
            self.dropped += 1
            return
        self._backlog.append(data)
        self._backlog_size += len(data)
        self._flush()
        if self._backlog:
            self._waiting.set()

    async def run(self) -> None:
        """Write the backlog as the descriptor takes it, until cancelled."""
        while True:
            await self._waiting.wait()
            try:
                await trio.lowlevel.wait_writable(self.fd)
            except OSError:
                # Closed, or of a kind that cannot be waited for.
                self._drop_backlog()
            self._flush()
            if not self._backlog:
                self._waiting = trio.Event()

    def finish(self, seconds: float) -> None:
        """Write the backlog before the program ends; waits *seconds* at most for a reader that stalls."""
        while self._backlog and self._is_writable(seconds):
            self._flush()

    def _flush(self) -> None:
        try:
            while self._backlog and self._is_writable(0):
                line = self._backlog.popleft()
                self._backlog_size -= len(line)
                written = os.write(self.fd, line[:PIECE])
                if written < len(line):
                    self._backlog.appendleft(line[written:])
                    self._backlog_size += len(line) - written
        except OSError:
            # EPIPE, ENOSPC, EIO, EBADF: this line is lost. The next one may fare better.
            self.dropped += 1

    def _is_writable(self, seconds: float) -> bool:
        # An error condition counts as writable: the write then says which.
        return bool(self._poll.poll(math.ceil(seconds * 1000)))

    def _drop_backlog(self) -> None:
        self.dropped += len(self._backlog)
        self._backlog.clear()
        self._backlog_size = 0

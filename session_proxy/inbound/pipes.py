"""Pipes through which the kernel moves bytes from socket to socket, not copied to us (splice(2))."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys

import attrs

# A pipe holds at most one megabyte (/proc/sys/fs/pipe-max-size), and an unprivileged user 64 MiB of pipes in
# all (pipe(7)): hence at most 64 of them. A relay has one only from a read to the writes of what was read, so
# this is the number of destinations that may be slow at once before others use the shared buffer.
CAPACITY = 1024 * 1024
MOST_PIPES = 64


def can_splice() -> bool:
    """Tell whether this system has splice(2)."""
    return sys.platform == "linux" and hasattr(os, "splice")


@attrs.define(eq=False)
class Pipe:
    """A pipe with non-blocking ends; *held* is how many bytes are in it."""

    output: int
    input: int
    held: int = 0

    def fill(self, source: int) -> int:
        """Move what the socket *source* has into the empty pipe; return how many bytes, 0 at its end.

        Raises:
          BlockingIOError: there is nothing now.
          OSError: the connection broke.

        """
        self.held = os.splice(source, self.input, CAPACITY, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
        return self.held

    def drain(self, sink: int) -> int:
        """Move bytes on to the socket *sink*; return how many.

        Raises:
          BlockingIOError: it takes none now.
          OSError: the connection broke.

        """
        moved = os.splice(self.output, sink, self.held, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
        self.held -= moved
        return moved

    def close(self) -> None:
        """Close both ends."""
        os.close(self.output)
        os.close(self.input)


@attrs.define(eq=False)
class PipePool:
    """Empty pipes to lend; the one given back last is lent first, since its pages are in the cache."""

    most: int = MOST_PIPES
    _idle: list[Pipe] = attrs.field(factory=list[Pipe], init=False)
    _made: int = attrs.field(default=0, init=False)

    @property
    def idle(self) -> int:
        """How many pipes are there to be lent."""
        return len(self._idle)

    def take(self) -> Pipe | None:
        """Return an empty pipe, or `None` where there is none to be had."""
        if self._idle:
            return self._idle.pop()
        if self._made >= self.most:
            return None
        pipe = _open_pipe()
        if pipe is not None:
            self._made += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Take *pipe* back; one that still holds bytes is thrown away with them."""
        if pipe.held:
            self._made -= 1
            pipe.close()
        else:
            self._idle.append(pipe)

    def close(self) -> None:
        """Close the pipes that are not lent."""
        while self._idle:
            self._idle.pop().close()
            self._made -= 1


def _open_pipe() -> Pipe | None:
    try:
        output, input_ = os.pipe()
    except OSError as exc:
        if exc.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        return None
    pipe = Pipe(output, input_)
    # Where the user's share is used up the pipe stays small, and the shared buffer is better than that.
    with contextlib.suppress(OSError):
        fcntl.fcntl(input_, fcntl.F_SETPIPE_SZ, CAPACITY)
        return pipe
    pipe.close()
    return None

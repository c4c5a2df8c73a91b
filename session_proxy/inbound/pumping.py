"""Move bytes from one socket to another, as far as they go without waiting.

Theory: a `Pump` is one direction of a relay. `Pump.step` moves what it can, and says what it now waits for.
It never waits itself, so that any loop can drive it: `movers` and `epoll_mover` have one each.

The buffer is shared by all pumps: a pump needs it only from a read to the writes of what was read, and keeps
a copy of what a slow sink has not taken. Where much has moved already, and the system can, the bytes go
through a pipe instead and never leave the kernel; the pipe is likewise lent from a read to the writes.
"""

from __future__ import annotations

import enum
import socket

import attrs

from session_proxy.inbound.pipes import Pipe, PipePool

# One read's worth. More does not fit into a processor's second-level cache, and is not faster.
LARGEST_READ = 1024 * 1024

# First read of a connection, and after its sink could not take all: what a slow sink leaves is kept, so this
# is what one connection can make us hold.
SMALLEST_READ = 64 * 1024

# A direction that has moved this much is worth a pipe: below, two system calls more cost more than the copy.
SPLICE_AFTER = 256 * 1024

# What one step may move before others have their turn: well below a millisecond's worth.
STEP = 1024 * 1024


class Waiting(enum.Enum):
    """What a pump waits for after a step."""

    TURN = enum.auto()
    SOURCE = enum.auto()
    SINK = enum.auto()
    NOTHING = enum.auto()


@attrs.define(eq=False)
class Workshop:
    """What the pumps of one thread share: a buffer, and pipes where the system has splice(2)."""

    pipes: PipePool | None
    buffer: bytearray = attrs.field(factory=lambda: bytearray(LARGEST_READ), repr=False)
    view: memoryview = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.view = memoryview(self.buffer)

    def close(self) -> None:
        """Close the pipes."""
        if self.pipes is not None:
            self.pipes.close()


@attrs.define(eq=False)
class Pump:
    """One direction: from *source* to *sink*, both non-blocking. *moved* counts the bytes that *sink* took.

    Where `thorough` is false, a read that fills less than its buffer counts as the last for now. That is
    sound only for who is told of every new arrival (edge-triggered epoll), and not for a source at whose end,
    or with urgent data, of which the news is out already. `sink_watched` is that driver's own note.
    """

    source: socket.socket
    sink: socket.socket
    workshop: Workshop
    thorough: bool = True
    waiting: Waiting = Waiting.SOURCE
    sink_watched: bool = False
    moved: int = 0
    _left: bytes = b""
    _pipe: Pipe | None = None
    _read_size: int = SMALLEST_READ

    def step(self) -> Waiting:
        """Move bytes until there are no more now, the sink is full, or it is others' turn.

        `Waiting.NOTHING` is the end of the source, and all before it has been sent.

        Raises:
          OSError: one of the connections broke; call `abandon`.

        """
        try:
            self.waiting = self._step()
        except BlockingIOError:
            # Only the source: what is to be written is kept, and `_write` says so.
            self.waiting = Waiting.SOURCE
        return self.waiting

    def _step(self) -> Waiting:
        until = self.moved + STEP
        if not self._write_left():
            return Waiting.SINK
        while self.moved < until:
            if self.moved >= SPLICE_AFTER and self.workshop.pipes is not None:
                pipe = self.workshop.pipes.take()
                if pipe is not None:
                    return self._splice(pipe, until)
            wanted = self._read_size
            count = self.source.recv_into(self.workshop.buffer, wanted)
            if count == 0:
                return Waiting.NOTHING
            if not self._write(count):
                self._read_size = SMALLEST_READ
                return Waiting.SINK
            if count == wanted:
                self._read_size = min(2 * wanted, LARGEST_READ)
            elif not self.thorough:
                return Waiting.SOURCE
        return Waiting.TURN

    def _write(self, count: int) -> bool:
        """Send the first *count* bytes of the buffer; keep what the sink does not take and return `False`."""
        view = self.workshop.view
        sent = 0
        try:
            while sent < count:
                sent += self.sink.send(view[sent:count])
        except BlockingIOError:
            self._left = bytes(view[sent:count])
        self.moved += sent
        return sent == count

    def _write_left(self) -> bool:
        """Send what earlier steps have left, and return whether the sink took all of it."""
        if self._pipe is not None:
            try:
                while self._pipe.held:
                    self.moved += self._pipe.drain(self.sink.fileno())
            except BlockingIOError:
                return False
            self._return_pipe()
        while self._left:
            try:
                sent = self.sink.send(self._left)
            except BlockingIOError:
                return False
            self.moved += sent
            self._left = self._left[sent:]
        return True

    def _splice(self, pipe: Pipe, until: int) -> Waiting:
        self._pipe = pipe
        source, sink = self.source.fileno(), self.sink.fileno()
        try:
            while self.moved < until:
                if pipe.fill(source) == 0:
                    return Waiting.NOTHING
                try:
                    while pipe.held:
                        self.moved += pipe.drain(sink)
                except BlockingIOError:
                    return Waiting.SINK
            return Waiting.TURN
        finally:
            if not pipe.held:
                self._return_pipe()

    def _return_pipe(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None and self.workshop.pipes is not None:
            self.workshop.pipes.give_back(pipe)

    def abandon(self) -> None:
        """Let go of what the sink has not taken."""
        self._return_pipe()
        self._left = b""
        self.waiting = Waiting.NOTHING

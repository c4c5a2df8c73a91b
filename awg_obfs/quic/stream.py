"""One QUIC stream as a Trio stream: two halves, bounded both ways."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import trio

from awg_obfs.quic.engine import Buffer
from awg_obfs.quic.errors import ConnectionFailure, ConnectionLostError, StreamResetError
from awg_obfs.quic.settings import KIB

# What one call of receive_some returns at most where the caller names no limit.
_MOST_AT_ONCE = 256 * KIB

# The code of a reset that has no story to tell.
NO_ERROR = 0


class StreamCarrier(Protocol):
    """What a stream needs of its connection."""

    @property
    def failure(self) -> ConnectionFailure | None:
        """Why the connection is over, or None."""
        ...

    def room(self, stream_id: int, wanted: int) -> int:
        """Return how many bytes of *wanted* the stream may write now; 0 or less where it has to wait."""
        ...

    def write(self, stream_id: int, data: Buffer, *, end: bool = False) -> None:
        """Queue *data* and the end of the stream."""
        ...

    def await_room(self, stream: QuicStream) -> None:
        """Call `QuicStream.wake_sender` once the stream may write."""
        ...

    def consumed(self, stream_id: int, amount: int, total: int) -> None:
        """Tell that the reader took *amount* bytes, *total* so far."""
        ...

    def reset(self, stream_id: int, code: int) -> None:
        """Give up sending."""
        ...

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to send no more."""
        ...

    def retire(self, stream: QuicStream) -> None:
        """Both directions have ended: forget the stream."""
        ...


class QuicStream(trio.abc.HalfCloseableStream):
    """A byte stream to the peer, one of many of its connection.

    Cancelling `send_all` leaves an unknown part of the data sent: close or reset the stream then. Cancelling
    `receive_some` loses nothing.
    """

    def __init__(self, carrier: StreamCarrier, stream_id: int) -> None:
        self.stream_id = stream_id
        self._carrier = carrier
        self._closed = False
        # Receiving.
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._taken = 0
        self._ended = False
        self._told_total: int | None = None
        self._reset_by_peer: int | None = None
        self._receiving = False
        self._arrived = trio.lowlevel.ParkingLot()
        # Sending.
        self._finished = False
        self._stopped_by_peer: int | None = None
        self._sending = False
        self._room = trio.lowlevel.ParkingLot()

    @property
    def buffered(self) -> int:
        """How many bytes wait for the reader."""
        return self._buffered

    @property
    def ended(self) -> bool:
        """Whether the peer has sent everything."""
        return self._ended or self._reset_by_peer is not None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has arrived, at least one byte; ``b""`` is the end of the stream.

        Raises:
          StreamResetError: the peer gave the stream up (what had arrived is returned first).
          ConnectionLostError: the connection ended before the stream did.
          trio.ClosedResourceError: the stream was closed here.
          trio.BusyResourceError: another task is receiving.

        """
        if max_bytes is None:
            max_bytes = _MOST_AT_ONCE
        elif not isinstance(max_bytes, int):  # pyright: ignore[reportUnnecessaryIsInstance] (Trio's own checks ask for it)
            raise TypeError("max_bytes is a number of bytes")
        elif max_bytes < 1:
            raise ValueError("max_bytes is at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while not self._readable():
                waited = True
                await self._arrived.park()
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._receiving = False
        return self._take(max_bytes)

    def _readable(self) -> bool:
        """Whether receiving need not wait; raises what ended it."""
        if self._closed:
            raise trio.ClosedResourceError("the stream was closed here")
        if self._chunks or self._ended:
            return True
        if self._reset_by_peer is not None:
            raise StreamResetError(self._reset_by_peer)
        if self._carrier.failure is not None:
            raise ConnectionLostError(self._carrier.failure)
        return False

    def _take(self, most: int) -> bytes:
        chunks = self._chunks
        if self._buffered <= most:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
        else:
            taken: list[bytes] = []
            left = most
            while left:
                chunk = chunks.popleft()
                if len(chunk) > left:
                    chunks.appendleft(chunk[left:])
                    chunk = chunk[:left]
                taken.append(chunk)
                left -= len(chunk)
            data = b"".join(taken)
        size = len(data)
        if size:
            self._buffered -= size
            self._taken += size
            self._carrier.consumed(self.stream_id, size, self._taken)
        return data

    async def send_all(self, data: Buffer) -> None:
        """Queue *data*, which may be used again afterwards; waits while others have their turn or too much is queued.

        Raises:
          StreamResetError: the peer reads no more.
          ConnectionLostError: the connection ended.
          trio.ClosedResourceError: the stream was closed here, or `send_eof` was called.
          trio.BusyResourceError: another task is sending.

        """
        self._start_sending()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            rest = memoryview(data)
            waited = False
            while True:
                self._check_sendable()
                room = self._carrier.room(self.stream_id, len(rest))
                if room > 0 or not rest:
                    self._carrier.write(self.stream_id, rest[:room])
                    rest = rest[room:]
                    if not rest:
                        break
                waited = True
                self._carrier.await_room(self)
                await self._room.park()
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the send buffer has room; see `send_all` for what may be raised."""
        self._start_sending()
        try:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            while self._carrier.room(self.stream_id, 1) <= 0:
                self._carrier.await_room(self)
                await self._room.park()
                self._check_sendable()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on. See `send_all` for what may be raised."""
        self._start_sending()
        try:
            await trio.lowlevel.checkpoint()
            if self._closed or not self._finished:
                self._check_sendable()
                self._finish()
        finally:
            self._sending = False

    async def wait_unheard(self) -> None:
        """Wait until nothing more can be sent that the peer would hear: it stopped reading, or sending has ended.

        Raises:
          ConnectionLostError: the connection ended.

        """
        await trio.lowlevel.checkpoint()
        while not self._finished and self._stopped_by_peer is None:
            if self._carrier.failure is not None:
                raise ConnectionLostError(self._carrier.failure)
            await self._room.park()

    def _start_sending(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True

    def _check_sendable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the stream was closed here")
        if self._finished:
            raise trio.ClosedResourceError("the end of the stream was sent already")
        if self._stopped_by_peer is not None:
            raise StreamResetError(self._stopped_by_peer)
        if self._carrier.failure is not None:
            raise ConnectionLostError(self._carrier.failure)

    def _finish(self) -> None:
        self._finished = True
        self.wake_sender()
        self._carrier.write(self.stream_id, b"", end=True)
        self._retire_if_over()

    async def aclose(self) -> None:
        """Close both directions. What was sent still arrives; what was not received is dropped."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Do what `aclose` does, without a checkpoint: closing never waits."""
        if not self._closed:
            if not self._finished and self._stopped_by_peer is None:
                self._finish()
            self._abandon(NO_ERROR)

    def reset(self, code: int) -> None:
        """Give up both directions at once, and tell the peer *code*; what was not sent never will be."""
        if not self._closed:
            if self._stopped_by_peer is None:
                self._finished = True
                self._carrier.reset(self.stream_id, code)
            self._abandon(code)

    def _abandon(self, code: int) -> None:
        self._closed = True
        if not self._ended and self._reset_by_peer is None:
            self._carrier.stop(self.stream_id, code)
        self._drop()
        self.wake()
        self._retire_if_over()

    def _drop(self) -> None:
        """Forget what nobody will read, so that it stops using the connection's window."""
        self._chunks.clear()
        if self._buffered:
            dropped, self._buffered = self._buffered, 0
            self._taken += dropped
            self._carrier.consumed(self.stream_id, dropped, self._taken)

    def _retire_if_over(self) -> None:
        if (self._ended or self._reset_by_peer is not None) and (
            self._finished or self._stopped_by_peer is not None
        ):
            self._carrier.retire(self)

    # -- what the connection calls

    def on_data(self, chunks: list[bytes], *, end: bool) -> None:
        """The peer sent *chunks*, in order."""
        self._chunks.extend(chunk for chunk in chunks if chunk)
        self._buffered += sum(map(len, chunks))
        self._ended = self._ended or end
        if self._closed:
            self._drop()
        self._arrived.unpark_all()
        if end:
            self._retire_if_over()
        elif self._told_total is not None:
            self._end_if_complete(self._told_total)

    def on_end_told(self, total: int) -> None:
        """The peer says that the stream ends after *total* bytes, for QUIC's own word may be lost for good."""
        if not self.ended:
            self._told_total = total
            self._end_if_complete(total)

    def _end_if_complete(self, total: int) -> None:
        if not self._ended and self._taken + self._buffered >= total:
            self._ended = True
            self._arrived.unpark_all()
            self._retire_if_over()

    def on_reset(self, code: int) -> None:
        """The peer gave up sending."""
        self._reset_by_peer = code
        self._arrived.unpark_all()
        self._retire_if_over()

    def on_stopped(self, code: int) -> None:
        """The peer reads no more."""
        if not self._finished:
            self._stopped_by_peer = code
        self.wake_sender()
        self._retire_if_over()

    def wake_sender(self) -> None:
        """Have a waiting `send_all` look again."""
        self._room.unpark_all()

    def wake(self) -> None:
        """Have whoever waits look again."""
        self._arrived.unpark_all()
        self._room.unpark_all()

"""A stream of a session, as Trio has them."""

from __future__ import annotations

import operator
from collections import deque
from typing import Protocol

import trio

from tunnel_relay.errors import RelayError
from tunnel_relay.protocol.frames import Buffer
from tunnel_relay.protocol.multiplexer import (
    CreditReceived,
    DataReceived,
    EndReceived,
    Reason,
    StreamAccepted,
    StreamEvent,
    StreamOpened,
    StreamRefused,
    StreamReset,
)
from tunnel_relay.protocol.session import Session
from tunnel_relay.streams import OneAtATime

# What one read returns at most.
MOST_AT_ONCE = 256 * 1024


class StreamRefusedError(RelayError):
    """The other end would not open a stream, for *reason*; *detail* is its own word, cleaned for a terminal."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail or reason.name.lower().replace("_", " "))


class StreamResetError(RelayError, trio.BrokenResourceError):
    """A stream ended before its time, for *reason*; *detail* is the other end's word, cleaned for a terminal."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail or reason.name.lower().replace("_", " "))


class Live(Protocol):
    """The session that a stream belongs to: `LiveSession`."""

    @property
    def session(self) -> Session:
        """What it is without I/O."""
        ...

    def poke(self) -> None:
        """There is something to send."""
        ...

    async def wait_room(self) -> None:
        """Wait until more may be kept than now, or something else has changed."""
        ...

    def forget(self, stream: RelayStream) -> None:
        """The stream is closed."""
        ...


class RelayStream(trio.abc.HalfCloseableStream):
    """A stream of a session, as Trio has them. It outlives the links that carry it."""

    def __init__(self, live: Live, number: int) -> None:
        self.number = number
        self._live = live
        self._chunks: deque[Buffer] = deque()
        self._changed = trio.Event()
        self._accepted = False
        self._ended = False
        self._eof_sent = False
        self._closed = False
        self._failure: StreamRefusedError | StreamResetError | None = None
        self._sending = OneAtATime("sending on")
        self._receiving = OneAtATime("receiving from")

    async def wait_accepted(self) -> None:
        """Wait for the peer's answer.

        Raises:
          StreamRefusedError: it would not.
          StreamResetError: the stream or the session ended first.

        """
        while not self._accepted:
            self._check()
            await self._changed.wait()

    def accept(self) -> None:
        """Accept a stream that the peer has opened."""
        self._accepted = True
        self._live.session.streams.accept(self.number)
        self._live.poke()

    def refuse(self, reason: Reason, detail: str = "") -> None:
        """Refuse a stream that the peer has opened."""
        self._closed = True
        self._live.session.streams.refuse(self.number, reason, detail)
        self._live.forget(self)
        self._live.poke()

    async def send_all(self, data: Buffer) -> None:
        """Send *data*: it is queued, and kept until it has arrived; waits while too much is.

        Raises:
          StreamResetError: the stream ended.
          trio.ClosedResourceError: here.

        """
        with self._sending:
            await trio.lowlevel.checkpoint()
            rest = memoryview(bytes(data))
            session = self._live.session
            while True:
                self._check_sendable()
                room = session.room(self.number)
                if room:
                    session.streams.send(self.number, rest[:room])
                    rest = rest[room:]
                    self._live.poke()
                if not rest:
                    return
                await self._live.wait_room()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until `send_all` may not have to."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            while not self._live.session.room(self.number):
                await self._live.wait_room()
                self._check_sendable()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if not self._eof_sent:
                self._check_sendable()
                self._eof_sent = True
                self._live.session.streams.send_eof(self.number)
                self._live.poke()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, waiting for it; ``b""`` at the end.

        Raises:
          StreamResetError: the stream ended before its time.
          trio.ClosedResourceError: here.

        """
        with self._receiving:
            await trio.lowlevel.checkpoint()
            if max_bytes is not None and operator.index(max_bytes) < 1:
                raise ValueError("max_bytes must be at least 1")
            while not self._chunks:
                if self._closed:
                    raise trio.ClosedResourceError("the stream was closed here")
                if self._ended:
                    return b""
                self._check()
                await self._changed.wait()
            if self._closed:
                raise trio.ClosedResourceError("the stream was closed here")
            return self._take(max_bytes or MOST_AT_ONCE)

    def reset(self, reason: Reason, detail: str = "") -> None:
        """End both directions at once, so that the peer does not take it for the end of what was to be sent."""
        if not self._closed:
            self._closed = True
            self._live.session.streams.reset(self.number, reason, detail)
            self._live.forget(self)
            self._live.poke()
            self._wake()

    async def aclose(self) -> None:
        """Close both directions; where they have not ended, the peer hears of a reset, after all that was sent."""
        if not self._closed:
            self._closed = True
            streams = self._live.session.streams
            if self._eof_sent or self._failure is not None or not self._accepted:
                streams.reset(self.number)
            else:
                streams.send_eof(self.number)
                streams.reset(self.number)
            self._live.forget(self)
            self._live.poke()
            self._wake()
        await trio.lowlevel.checkpoint()

    def heed(self, event: StreamEvent) -> None:
        """Take an event of the session."""
        match event:
            case StreamAccepted():
                self._accepted = True
            case StreamRefused(_, reason, detail):
                self._failure = StreamRefusedError(reason, detail)
            case DataReceived(_, data):
                self._chunks.append(data)
            case EndReceived():
                self._ended = True
            case StreamReset(_, reason, detail):
                self._failure = StreamResetError(reason, detail)
            case CreditReceived() | StreamOpened():
                return
        self._wake()

    def _take(self, most: int) -> bytes:
        taken: list[Buffer] = []
        left = most
        while self._chunks and left:
            chunk = self._chunks.popleft()
            if len(chunk) > left:
                view = memoryview(chunk)
                self._chunks.appendleft(view[left:])
                chunk = view[:left]
            taken.append(chunk)
            left -= len(chunk)
        data = b"".join(taken)
        self._live.session.streams.consumed(self.number, len(data))
        self._live.poke()
        return data

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the stream was closed here")
        if self._failure is not None:
            raise self._failure

    def _check_sendable(self) -> None:
        self._check()
        if self._eof_sent:
            raise trio.ClosedResourceError("the end was sent already")

"""A client's WebSocket at the gateway, and what can be done to it: cut, closed, silenced, slowed down."""

from __future__ import annotations

import math
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

import attrs
import trio

from session_proxy.lab.faults import Faults
from session_proxy.lab.websocket_frames import (
    MessageReader,
    Opcode,
    WebSocketProtocolError,
    encode_close,
    encode_frame,
)
from tunnel_relay.background import open_background

# How often a silenced socket looks whether it may speak again.
SILENCE_CHECK = 0.05
# How long a connection that is to be cut with a loss waits for frames to lose.
DOOM = 0.25
READ_SIZE = 256 * 1024
# How long a client that was cut is heard out.
FALL_TIME = 1.0
# How long a client may take to answer a close.
CLOSE_TIME = 2.0


@attrs.define(eq=False)
class FrailStream(trio.abc.Stream):
    """A stream that stops while ``Faults.silent`` is set, and breaks when it is `cut`."""

    _stream: trio.abc.Stream
    _faults: Faults
    cut: bool = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive, but not while silenced."""
        data = await self._stream.receive_some(max_bytes)
        await self._check()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, but not while silenced."""
        await self._check()
        await self._stream.send_all(data)

    def send_nowait(self, data: bytes | bytearray) -> int:
        """Send what goes at once, and return how much that was; 0 where there is no telling.

        Raises:
          trio.BrokenResourceError: the peer is gone.

        """
        if self.cut:
            raise trio.BrokenResourceError("cut by the lab")
        if self._faults.silent or not isinstance(self._stream, trio.SocketStream):
            return 0
        try:
            return os.write(self._stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError("the client is gone") from exc

    async def fall(self) -> None:
        """Go down as the faults say: end the connection and hear the client out, or reset it."""
        if self._faults.cut_resets and isinstance(self._stream, trio.SocketStream):
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif isinstance(self._stream, trio.abc.HalfCloseableStream):
            with trio.move_on_after(FALL_TIME), suppress(trio.BrokenResourceError):
                await self._stream.send_eof()
                while await self._stream.receive_some(READ_SIZE):
                    pass  # what was in flight is lost

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream below does."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._stream.aclose()

    async def _check(self) -> None:
        # A fault is a plain attribute, set from anywhere.
        while self._faults.silent and not self.cut:  # noqa: ASYNC110
            await trio.sleep(SILENCE_CHECK)
        if self.cut:
            raise trio.BrokenResourceError("cut by the lab")


@attrs.define(eq=False)
class RateMeter:
    """Counts frames in windows of one second."""

    _window: float = -math.inf
    _count: int = 0

    def count(self, now: float) -> int:
        """Note one frame, and return how many came in this second."""
        if now - self._window >= 1.0:
            self._window, self._count = now, 0
        self._count += 1
        return self._count


class LinkClosedError(Exception):
    """The client's WebSocket has ended."""


class ClientLink:
    """One WebSocket of a client's: `serve` reads it and sends what waits, anybody may `post`.

    Posting does not wait: a task that is cancelled cannot leave half a message, and nobody who reads waits for
    somebody who writes. *leftover* is what was read behind the request's head.
    """

    def __init__(self, stream: FrailStream, leftover: bytes = b"") -> None:
        self._stream = stream
        self._reader = MessageReader()
        self._received: deque[bytes] = deque()
        self._outgoing = bytearray()
        self._backlogged = trio.Event()
        self._sending = False
        self._peer_closed = False
        self._closed = False
        self._closing: int | None = None
        self._doomed: int | None = None
        self._reading = trio.CancelScope()
        if leftover:
            self._take(leftover)

    @property
    def backlog(self) -> int:
        """Bytes that were posted, and that the socket has not taken."""
        return len(self._outgoing)

    async def receive(self) -> bytes:
        """Return the next message, text and binary alike; raises `LinkClosedError`."""
        while not self._received:
            await self._read()
        return self._received.popleft()

    async def serve(self, receive: Callable[[bytes], None]) -> None:
        """Hand every message to *receive* until the WebSocket ends, is closed or is cut."""
        async with open_background() as nursery:
            nursery.start_soon(self._send_backlog)
            with self._reading, suppress(LinkClosedError):
                while True:
                    while self._received:
                        message = self._received.popleft()
                        if not self._swallows():
                            receive(message)
                    await self._read()
            if self._closing is not None:
                await self.finish(self._closing)
                return
        if self._reading.cancelled_caught:
            # It was cut, perhaps by the deadline that loses frames.
            self._stream.cut = True
            await self._stream.fall()

    def post(self, messages: Iterable[bytes]) -> bool:
        """Send binary messages, now or as soon as possible; `False` where the WebSocket is gone or closing."""
        if self._closed or self._stream.cut:
            return False
        return self._write([encode_frame(Opcode.BINARY, one) for one in messages if not self._swallows()])

    async def finish(self, code: int, reason: str = "") -> None:
        """Close by the book, and wait a while for the client's answer."""
        if self._peer_closed or not self._write([encode_close(code, reason)]):
            return
        self._closed = True
        with trio.move_on_after(CLOSE_TIME), suppress(LinkClosedError):
            while True:
                await self._read()

    def close(self, code: int) -> None:
        """Have `serve` close the WebSocket by the book, and return."""
        self._closing = code
        self._reading.cancel()

    def cut(self, *, lose: int = 0) -> None:
        """Drop the connection without a word, after the next *lose* frames of either side went nowhere."""
        self._doomed = lose
        if lose:
            self._reading.deadline = trio.current_time() + DOOM
        else:
            self._reading.cancel()

    async def _send_backlog(self) -> None:
        try:
            while True:
                while self._outgoing:
                    self._sending = True
                    data = bytes(self._outgoing)
                    self._outgoing.clear()
                    await self._stream.send_all(data)
                self._sending = False
                self._backlogged = trio.Event()
                await self._backlogged.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._reading.cancel()

    async def _read(self) -> None:
        """Take in what comes next, and answer pings and the close; raises `LinkClosedError`."""
        if self._peer_closed:
            raise LinkClosedError
        try:
            data = await self._stream.receive_some(READ_SIZE)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise LinkClosedError from exc
        if not data:
            raise LinkClosedError
        if not self._write(self._take(data)):
            raise LinkClosedError

    def _take(self, data: bytes | bytearray) -> list[bytes]:
        answers: list[bytes] = []
        try:
            for message in self._reader.receive_data(data):
                match message.opcode:
                    case Opcode.PING:
                        answers.append(encode_frame(Opcode.PONG, message.payload))
                    case Opcode.CLOSE:
                        answers.append(encode_frame(Opcode.CLOSE, message.payload[:2]))
                        self._peer_closed = True
                        break
                    case Opcode.PONG:
                        continue
                    case _:
                        self._received.append(message.payload)
        except WebSocketProtocolError as exc:
            answers.append(encode_close(exc.code, str(exc)))
            self._peer_closed = True
        return answers

    def _write(self, frames: list[bytes]) -> bool:
        self._outgoing += b"".join(frames)
        if self._outgoing and not self._sending:
            try:
                del self._outgoing[: self._stream.send_nowait(self._outgoing)]
            except trio.BrokenResourceError:
                return False
            if self._outgoing:
                self._backlogged.set()
        return True

    def _swallows(self) -> bool:
        if self._doomed is None:
            return False
        if self._doomed == 0:
            self._reading.cancel()
        self._doomed = max(0, self._doomed - 1)
        return True

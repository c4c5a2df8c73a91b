"""A client's WebSocket at the gateway, and what can be done to it: cut, closed, silenced, slowed down."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import trio

from session_proxy.lab.faults import Faults
from tunnel_relay.errors import WebSocketClosedError
from tunnel_relay.websocket import WebSocket

# How often a silenced socket looks whether it may speak again.
SILENCE_CHECK = 0.05
# How long a connection that is to be cut with a loss waits for frames to lose.
DOOM = 0.25


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


@attrs.define(eq=False)
class ClientLink:
    """One WebSocket of a client's; `serve` it, and the methods below act on it."""

    _websocket: WebSocket
    _stream: FrailStream
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _closing: int | None = attrs.field(default=None, init=False)
    _doomed: int | None = attrs.field(default=None, init=False)

    async def serve(self, receive: Callable[[bytes], None]) -> None:
        """Hand every message to *receive*, text and binary alike, until the WebSocket ends or is cut."""
        with self._scope:
            try:
                while True:
                    message = await self._websocket.receive()
                    if not self._swallows():
                        receive(message.encode() if isinstance(message, str) else message)
            except WebSocketClosedError:
                return
        if self._closing is not None:
            await self._websocket.aclose(self._closing)
        elif self._scope.cancelled_caught:
            # Its own deadline cuts it too.
            self._stream.cut = True

    async def send(self, message: bytes) -> bool:
        """Send one frame; `False` where the WebSocket is gone, and the frame with it."""
        if self._swallows():
            return True
        try:
            await self._websocket.send_binary(message)
        except WebSocketClosedError:
            return False
        return True

    def close(self, code: int) -> None:
        """Have `serve` close the WebSocket by the book, and return."""
        self._closing = code
        self._scope.cancel()

    def cut(self, *, lose: int = 0) -> None:
        """Drop the connection without a word, after the next *lose* frames of either side went nowhere."""
        self._doomed = lose
        if lose:
            self._scope.deadline = trio.current_time() + DOOM
        else:
            self._fall()

    def _swallows(self) -> bool:
        if self._doomed is None:
            return False
        if self._doomed == 0:
            self._fall()
        self._doomed = max(0, self._doomed - 1)
        return True

    def _fall(self) -> None:
        self._stream.cut = True
        self._scope.cancel()

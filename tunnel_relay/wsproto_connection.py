"""wsproto's WebSocket connection (RFC 6455), with a short way for whole binary messages."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence

import attrs
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, Event

from tunnel_relay.protocol.websocket_frames import FrameSplitter, binary_frame

# No message of ours is longer than 64 KiB; a peer's may be a little, and a megabyte is an attack.
MAX_MESSAGE = 1024 * 1024

# The end of an HTTP head (RFC 9112, section 2.1).
HEAD_END = b"\r\n\r\n"
READABLE = (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING)


@attrs.define(eq=False)
class BinaryMessages(Event):
    """Binary messages to go out in one piece."""

    messages: Sequence[bytes]


class FastConnection(WSConnection):
    """wsproto's state machine, with a short way for whole binary messages in both directions.

    Masks are random, as they must be (RFC 6455, section 5.3).
    """

    def __init__(self, connection_type: ConnectionType) -> None:
        super().__init__(connection_type)
        self._splitter = FrameSplitter(masked=not self.client, max_payload=MAX_MESSAGE)
        self._head = b""
        self._splitting = False

    def send(self, event: Event) -> bytes:
        """Return the bytes that carry *event*."""
        if self.connection is not None and self.state is ConnectionState.OPEN:
            if isinstance(event, BinaryMessages):
                return b"".join(map(self._frame, event.messages))
            if isinstance(event, BytesMessage) and event.message_finished:
                return self._frame(bytes(event.data))
        return super().send(event)

    def _frame(self, data: bytes) -> bytes:
        return binary_frame(data, os.urandom(4) if self.client else None)

    def receive_data(self, data: bytes | None) -> None:
        """Take bytes from the peer; `None` is its end."""
        if data is None or (self.connection is not None and not self._splitting):
            super().receive_data(data)
        elif self._splitting:
            self._splitter.receive_data(data)
        else:
            self._receive_head(data)

    def _receive_head(self, data: bytes) -> None:
        # What follows the HTTP head are frames, and wsproto must not have seen the beginning of one.
        self._head = (self._head + data)[-len(data) - len(HEAD_END) + 1 :]
        end = self._head.find(HEAD_END)
        if end < 0:
            super().receive_data(data)
            return
        left = len(self._head) - end - len(HEAD_END)
        super().receive_data(data[: len(data) - left])
        self._head = b""
        self._splitting = self.connection is not None or not self.client
        if left and self._splitting:
            self._splitter.receive_data(data[len(data) - left :])
        elif left:
            super().receive_data(data[len(data) - left :])

    def events(self) -> Generator[Event, None, None]:
        """Yield what has happened."""
        yield from super().events()
        while self.connection is not None and self.state in READABLE:
            frame = self._splitter.next_frame()
            if frame is None:
                return
            if isinstance(frame, bytes):
                yield BytesMessage(data=frame)
            else:
                super().receive_data(frame.data)
                yield from super().events()

"""The client's end of an smux session, version 1 (xtaci/smux), as the SSM agent speaks it.

Header, 8 bytes, little-endian: version (1), command, length (u16), stream id (u32); then *length* bytes. Only
the client opens streams, with odd ids from 3. Version 1 has no flow control of its own: one stream whose reader
stalls holds up all of them. A FIN ends a stream as a whole here, since both programs close it when either side
does.
"""

from __future__ import annotations

import enum
import struct
from collections import deque

import attrs

HEADER = struct.Struct("<BBHI")
VERSION = 1
FIRST_ID = 3
LAST_ID = 0xFFFFFFFF

# What one PSH may carry: the default of the reference (smux.DefaultConfig, MaxFrameSize).
MAX_DATA = 32768


class SmuxError(Exception):
    """The peer broke the protocol: the session is of no use any more."""


class Command(enum.IntEnum):
    """What a frame does."""

    SYN = 0
    FIN = 1
    PSH = 2
    NOP = 3


@attrs.frozen
class StreamData:
    """Bytes of a stream."""

    stream_id: int
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen
class StreamClosed:
    """The peer closed a stream, both ways."""

    stream_id: int


Event = StreamData | StreamClosed


@attrs.define(eq=False)
class Smux:
    """One session."""

    _open: set[int] = attrs.field(factory=set[int], init=False)
    next_id: int = FIRST_ID
    _received: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _outgoing: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _events: deque[Event] = attrs.field(factory=deque[Event], init=False)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._open)

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the session.

        Raises:
          SmuxError: they are not smux, version 1.

        """
        self._received += data
        at = 0
        while len(self._received) - at >= HEADER.size:
            version, command, length, stream_id = HEADER.unpack_from(self._received, at)
            if version != VERSION:
                raise SmuxError(f"the peer speaks version {version} of smux")
            end = at + HEADER.size + length
            if command == Command.PSH and len(self._received) < end:
                break
            if command == Command.PSH:
                self._on_data(stream_id, bytes(self._received[at + HEADER.size : end]))
            else:
                # Only PSH has data (the reference reads none for the others either).
                end = at + HEADER.size
                self._on_command(command, stream_id)
            at = end
        del self._received[:at]

    def next_event(self) -> Event | None:
        """Return what happened next, or `None`."""
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """Return, and forget, the bytes waiting to be sent."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def open_stream(self) -> int:
        """Open a stream and return its id.

        Raises:
          SmuxError: the ids are used up; a new session has them all again.

        """
        if self.next_id > LAST_ID:
            raise SmuxError("the session has no stream ids left")
        stream_id = self.next_id
        self.next_id += 2
        self._open.add(stream_id)
        self._put(Command.SYN, stream_id)
        return stream_id

    def send_data(self, stream_id: int, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes of a stream; where it is closed already, they are dropped."""
        if stream_id not in self._open:
            return
        with memoryview(data).cast("B") as view:
            for start in range(0, len(view), MAX_DATA):
                self._put(Command.PSH, stream_id, view[start : start + MAX_DATA])

    def close_stream(self, stream_id: int) -> None:
        """Close a stream, both ways."""
        if stream_id in self._open:
            self._open.discard(stream_id)
            self._put(Command.FIN, stream_id)

    def _on_data(self, stream_id: int, data: bytes) -> None:
        # Data for a stream that we have just closed may still be under way.
        if stream_id in self._open and data:
            self._events.append(StreamData(stream_id, data))

    def _on_command(self, command: int, stream_id: int) -> None:
        match command:
            case Command.FIN:
                if stream_id in self._open:
                    self._open.discard(stream_id)
                    self._put(Command.FIN, stream_id)
                    self._events.append(StreamClosed(stream_id))
            case Command.NOP | Command.SYN:
                pass
            case _:
                raise SmuxError(f"{command} is not a command of smux")

    def _put(self, command: Command, stream_id: int, data: memoryview | bytes = b"") -> None:
        self._outgoing += HEADER.pack(VERSION, command, len(data), stream_id)
        self._outgoing += data

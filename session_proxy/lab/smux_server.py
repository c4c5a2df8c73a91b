"""The accepting side of smux version 1 (xtaci/smux, as AWS's agent uses it): bytes in, frames out; no I/O.

Little-endian: version, command, length of the data, stream id (specification, section 9.2). It is written
apart from the client's on purpose, as all of the agent is.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator

import attrs

HEADER = struct.Struct("<BBHI")
VERSION = 1
# smux's MaxFrameSize.
MAX_DATA = 32768


class Command(enum.IntEnum):
    """What a frame is for."""

    SYN = 0
    FIN = 1
    PSH = 2
    NOP = 3


class SmuxError(Exception):
    """The client does not speak smux version 1; smux gives the whole session up."""


@attrs.frozen
class SmuxFrame:
    """One frame of *stream*; only PSH has *data*."""

    command: Command
    stream: int
    data: bytes = attrs.field(default=b"", repr=lambda data: f"<{len(data)} bytes>")

    def encode(self) -> bytes:
        """Return the frame's bytes; its data are at most `MAX_DATA`."""
        return HEADER.pack(VERSION, self.command, len(self.data), self.stream) + self.data


class SmuxReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> Iterator[SmuxFrame]:
        """Yield the frames that *data* completes.

        Raises:
          SmuxError: the bytes are no smux.

        """
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            version, command, length, stream = HEADER.unpack_from(self._buffer, start)
            if version != VERSION or command > max(Command):
                raise SmuxError(f"smux version {version}, command {command}")
            end = start + HEADER.size + length
            if len(self._buffer) < end:
                break
            yield SmuxFrame(Command(command), stream, bytes(self._buffer[start + HEADER.size : end]))
            start = end
        del self._buffer[:start]

"""The binary packet protocol (RFC 4253, section 6) between two buffers: no socket, no lock, no thread.

What is sent is sealed into an output buffer that somebody else empties; what arrives is put into an input
buffer, from which whole packets are taken.
"""

from __future__ import annotations

import os
import struct

from tunnel_relay.errors import SshDisconnectedError, SshHandshakeError
from tunnel_relay.ssh.ciphers import LENGTH, ClearPackets, PacketCipher

Part = bytes | bytearray | memoryview

# OpenSSH's PACKET_MAX_SIZE. RFC 4253, section 6.1 asks for 35000 at least.
MAX_PACKET = 256 * 1024
# No packet of ours is longer: the longest are channel data, cut to what the peer takes.
MAX_PAYLOAD = MAX_PACKET - 1024
# Room for the longest packet, and for a read of this size at the same time.
READ_SIZE = 256 * 1024
# The output buffer starts like this and grows where replies pile up.
OUTPUT_SIZE = 512 * 1024
# Nothing but a flood of requests that a peer sends without reading our answers gets there.
MAX_OUTPUT = 4 * 1024 * 1024

_HEADER = struct.Struct(">IB")
_MASK = 0xFFFFFFFF
_MIN_PADDING = 4
_RANDOM_POOL = 4096


class PacketWriter:
    """Seals payloads into a buffer. `take` what is in it, send it, and give it back with `give_back`."""

    def __init__(self) -> None:
        self.cipher: PacketCipher = ClearPackets()
        self.sequence = 0
        self.sealed_bytes = 0
        """Bytes since the keys were new."""
        self.used = 0
        """Bytes that wait to be taken."""
        self._buffer = bytearray(OUTPUT_SIZE)
        self._view = memoryview(self._buffer)
        self._spare: bytearray | None = bytearray(OUTPUT_SIZE)
        self._plain = memoryview(bytearray(MAX_PACKET))
        self._random = b""
        self._random_used = 0

    def write_raw(self, data: bytes) -> None:
        """Append *data* as it is: the version line."""
        self._reserve(len(data))
        self._view[self.used : self.used + len(data)] = data
        self.used += len(data)

    def write(self, *parts: Part) -> None:
        """Seal one packet whose payload is *parts*, one after another; at most `MAX_PAYLOAD` bytes."""
        cipher = self.cipher
        plain = self._plain
        end = LENGTH + 1
        for part in parts:
            start = end
            end += len(part)
            plain[start:end] = part
        padding = cipher.block - (end if cipher.hides_length else end - LENGTH) % cipher.block
        if padding < _MIN_PADDING:
            padding += cipher.block
        plain[end : end + padding] = self._padding(padding)
        _HEADER.pack_into(plain, 0, end - LENGTH + padding, padding)
        end += padding
        size = end + cipher.tag
        self._reserve(size)
        cipher.seal(self.sequence, plain[:end], self._view[self.used : self.used + size])
        self.used += size
        self.sequence = (self.sequence + 1) & _MASK
        self.sealed_bytes += size

    def take(self) -> memoryview:
        """Return everything that waits; it stays valid until it is given back."""
        taken = self._view[: self.used]
        self._buffer = self._spare if self._spare is not None else bytearray(OUTPUT_SIZE)
        self._spare = None
        self._view = memoryview(self._buffer)
        self.used = 0
        return taken

    def give_back(self, taken: memoryview) -> None:
        """Use the buffer behind *taken* again, unless it had grown."""
        buffer = taken.obj
        if isinstance(buffer, bytearray) and len(buffer) == OUTPUT_SIZE:
            self._spare = buffer

    def _padding(self, length: int) -> bytes:
        start = self._random_used
        if start + length > len(self._random):
            self._random = os.urandom(_RANDOM_POOL)
            start = 0
        self._random_used = start + length
        return self._random[start : start + length]

    def _reserve(self, size: int) -> None:
        needed = self.used + size
        if needed <= len(self._buffer):
            return
        if needed > MAX_OUTPUT:
            raise SshDisconnectedError("the peer asks for more answers than it reads")
        grown = bytearray(min(max(2 * len(self._buffer), needed), MAX_OUTPUT))
        grown[: self.used] = self._view[: self.used]
        self._buffer = grown
        self._view = memoryview(grown)


class PacketReader:
    """Takes packets out of what arrived. Read into `space`, say how much with `filled`."""

    def __init__(self) -> None:
        self.cipher: PacketCipher = ClearPackets()
        self.sequence = 0
        """The number of the next packet."""
        self.opened_bytes = 0
        """Bytes since the keys were new."""
        self._buffer = bytearray(MAX_PACKET + READ_SIZE)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._length: int | None = None

    def space(self) -> memoryview:
        """Return where the next bytes go: `READ_SIZE` bytes at least, once whole packets have been taken."""
        if self._start:
            rest = self._end - self._start
            self._view[:rest] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def filled(self, size: int) -> None:
        """Say that *size* bytes arrived in `space`."""
        self._end += size

    def line(self, limit: int) -> bytes | None:
        """Return the next line without its end, or `None` where it has not all arrived (RFC 4253, section 4.2).

        Raises:
          SshHandshakeError: it is longer than *limit* bytes.

        """
        newline = self._buffer.find(b"\n", self._start, min(self._end, self._start + limit + 1))
        if newline < 0:
            if self._end - self._start > limit:
                raise SshHandshakeError("the server does not speak SSH: its first line never ends")
            return None
        line = bytes(self._view[self._start : newline]).removesuffix(b"\r")
        self._start = newline + 1
        return line

    def unread(self) -> bytes:
        """Return what arrived and was not taken."""
        return bytes(self._view[self._start : self._end])

    def packet(self) -> tuple[bytes, int] | None:
        """Return the next packet, or `None` where it has not all arrived.

        It comes as (*body*, *end*): the payload is ``body[1:end]``. It is left in place because cutting it out
        would copy it.

        Raises:
          SshDisconnectedError: the packet is malformed, or was tampered with.

        """
        cipher = self.cipher
        available = self._end - self._start
        length = self._length
        if length is None:
            head = cipher.block if cipher.hides_length else LENGTH
            if available < head:
                return None
            length = cipher.length(self._view[self._start : self._start + head])
            self._check_length(length)
            self._length = length
        size = LENGTH + length + cipher.tag
        if available < size:
            return None
        body = cipher.open(self.sequence, self._view[self._start : self._start + size])
        self._start += size
        self._length = None
        self.sequence = (self.sequence + 1) & _MASK
        self.opened_bytes += size
        end = length - body[0]
        if end < 2:
            raise SshDisconnectedError("a packet has no payload")
        return body, end

    def _check_length(self, length: int) -> None:
        padded = length + LENGTH if self.cipher.hides_length else length
        if not self.cipher.block <= padded <= MAX_PACKET or padded % self.cipher.block:
            raise SshDisconnectedError(f"a packet cannot be {length} bytes long")

"""The binary packet protocol (RFC 4253, section 6) between two buffers: no socket, no lock, no thread.

What is sent is sealed into an output buffer that somebody else empties; what arrives is put into an input
buffer, from which whole packets are taken.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence

from tunnel_relay.errors import SshDisconnectedError, SshHandshakeError
from tunnel_relay.protocol.ssh_numbers import CHANNEL_DATA
from tunnel_relay.ssh.ciphers import LENGTH, ClearPackets, PacketCipher
from tunnel_relay.ssh.compression import Compressor, Decompressor

Part = bytes | bytearray | memoryview
Read = Callable[[Sequence[memoryview]], int]
"""Reads into buffers, one after another; returns how many bytes."""

# OpenSSH's PACKET_MAX_SIZE. RFC 4253, section 6.1 asks for 35000 at least.
MAX_PACKET = 256 * 1024
# No packet of ours is longer: the longest are channel data, cut to what the peer takes.
MAX_PAYLOAD = MAX_PACKET - 1024
MAX_DATA = MAX_PAYLOAD - 9
# Room for the longest packet, and for a read of this size at the same time.
READ_SIZE = 256 * 1024
# The output buffer starts like this and grows where replies pile up.
OUTPUT_SIZE = 512 * 1024
# Nothing but a flood of requests that a peer sends without reading our answers gets there.
MAX_OUTPUT = 4 * 1024 * 1024

_HEADER = struct.Struct(">IB")
PAYLOAD_AT = _HEADER.size
# Message number, recipient's channel, length (RFC 4254, section 5.2).
_CHANNEL_DATA = struct.Struct(">BII")
_DATA_AT = PAYLOAD_AT + _CHANNEL_DATA.size
_MASK = 0xFFFFFFFF
_MIN_PADDING = 4
_MAX_PADDING = 32  # a block more than what is needed, at most
_RANDOM_POOL = 4096


class PacketWriter:
    """Seals payloads into a buffer. `take` what is in it, send it, and give it back with `give_back`."""

    def __init__(self) -> None:
        self.cipher: PacketCipher = ClearPackets()
        self.compressor: Compressor | None = None
        self.sequence = 0
        self.sealed_bytes = 0
        """Bytes since the keys were new."""
        self.used = 0
        """Bytes that wait to be taken."""
        self._buffer = bytearray(OUTPUT_SIZE)
        self._view = memoryview(self._buffer)
        self._spare: bytearray | None = bytearray(OUTPUT_SIZE)
        self._plain = memoryview(bytearray(MAX_PACKET))
        self._slots: list[memoryview] = []
        self._slot_size = 0
        self._random = b""
        self._random_used = 0

    def write_raw(self, data: bytes) -> None:
        """Append *data* as it is: the version line."""
        self._view[self.used : self.used + len(data)] = data
        self.used += len(data)

    def write(self, *parts: Part) -> None:
        """Seal one packet whose payload is *parts*, one after another; at most `MAX_PAYLOAD` bytes."""
        plain = self._plain
        end = PAYLOAD_AT
        if self.compressor is not None:
            # What cannot be compressed becomes a few bytes longer: MAX_PAYLOAD leaves room for them.
            parts = (self.compressor.compress(parts),)
        for part in parts:
            start = end
            end += len(part)
            plain[start:end] = part
        self._seal(plain, self._finish(plain, end))

    def write_data(self, recipient: int, data: memoryview, most: int) -> None:
        """Seal *data* for the channel *recipient*, in as many messages of *most* bytes as that takes.

        This is where the time goes in a bulk transfer: a message costs one copy, besides its encryption.
        """
        if self.compressor is not None:
            for start in range(0, len(data), most):
                piece = data[start : start + most]
                self.write(_CHANNEL_DATA.pack(CHANNEL_DATA, recipient, len(piece)), piece)
            return
        plain = self._plain
        filled = total = 0
        for start in range(0, len(data), most):
            piece = data[start : start + most]
            size = len(piece)
            if size != filled:
                # All but the last are of one size: what surrounds the data is written once.
                filled = size
                total = self._frame(plain, recipient, size)
            plain[_DATA_AT : _DATA_AT + size] = piece
            self._seal(plain, total)

    def read_data(self, recipient: int, read: Read, most: int, limit: int) -> int:
        """Seal what *read* puts into the buffers that it is given, *limit* bytes at most; return how many.

        Like `write_data`, and without its copy. Raises what *read* does.
        """
        if self.compressor is not None:
            data = memoryview(bytearray(limit))
            count = read([data])
            self.write_data(recipient, data[:count], most)
            return count
        slots = self._slots_of(most)
        buffers = [slot[_DATA_AT : _DATA_AT + most] for slot in slots[: -(-limit // most)]]
        if limit < len(buffers) * most:
            buffers[-1] = buffers[-1][: limit - (len(buffers) - 1) * most]
        left = count = read(buffers)
        for slot in slots:
            if left <= 0:
                break
            self._seal(slot, self._frame(slot, recipient, min(left, most)))
            left -= most
        return count

    def _slots_of(self, most: int) -> list[memoryview]:
        """Return places for packets with *most* bytes of data each; a connection asks for one size only."""
        if self._slot_size != most:
            self._slot_size = most
            count = max(1, READ_SIZE // most)
            self._slots = [memoryview(bytearray(_DATA_AT + most + _MAX_PADDING)) for _ in range(count)]
        return self._slots

    def _frame(self, plain: memoryview, recipient: int, size: int) -> int:
        """Put what surrounds *size* bytes of channel data round them; return where the packet ends."""
        _CHANNEL_DATA.pack_into(plain, PAYLOAD_AT, CHANNEL_DATA, recipient, size)
        return self._finish(plain, _DATA_AT + size)

    def _finish(self, plain: memoryview, end: int) -> int:
        """Put padding behind the payload that ends at *end*, a header before it; return where the packet ends."""
        cipher = self.cipher
        padding = cipher.block - (end if cipher.hides_length else end - LENGTH) % cipher.block
        if padding < _MIN_PADDING:
            padding += cipher.block
        plain[end : end + padding] = self._padding(padding)
        _HEADER.pack_into(plain, 0, end - LENGTH + padding, padding)
        return end + padding

    def _seal(self, packet: memoryview, size: int) -> None:
        used = self.used
        after = used + size + self.cipher.tag
        if after > len(self._buffer):
            self._grow(after)
        self.cipher.seal(self.sequence, packet, size, self._view, used)
        self.used = after
        self.sequence = (self.sequence + 1) & _MASK
        self.sealed_bytes += after - used

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

    def _grow(self, needed: int) -> None:
        if needed > MAX_OUTPUT:
            raise SshDisconnectedError("the peer asks for more answers than it reads")
        grown = bytearray(min(max(2 * len(self._buffer), needed), MAX_OUTPUT))
        grown[: self.used] = self._view[: self.used]
        self._buffer = grown
        self._view = memoryview(grown)


class PacketReader:
    """Takes packets out of what arrived. Read into `space`, say how much with `filled`, then take `packet`s."""

    def __init__(self) -> None:
        self.cipher: PacketCipher = ClearPackets()
        self.decompressor: Decompressor | None = None
        self.sequence = 0
        """The number of the next packet."""
        self.opened_bytes = 0
        """Bytes since the keys were new."""
        self._buffer = bytearray(MAX_PACKET + READ_SIZE)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._length: int | None = None
        # What is opened takes less room than it did before: one batch always fits.
        self._opened = memoryview(bytearray(MAX_PACKET + READ_SIZE))
        self._opened_end = 0

    def space(self) -> memoryview:
        """Return where the next bytes go, about `READ_SIZE` at least. Packets taken before are lost by it."""
        self._opened_end = 0
        if self._start:
            rest = self._end - self._start
            self._view[:rest] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def filled(self, size: int) -> None:
        """Say that *size* bytes arrived in `space`."""
        self._end += size

    def line(self, limit: int) -> bytes | None:
        """Return the next line without its end, or `None` where it has not all arrived (RFC 4253, 4.2).

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

    def packet(self) -> memoryview | None:
        """Return the payload of the next packet, or `None` where it has not all arrived.

        The payload is valid until the next call of `space`: copy what is to stay.

        Raises:
          SshDisconnectedError: the packet is malformed, or was tampered with.

        """
        cipher = self.cipher
        start = self._start
        available = self._end - start
        length = self._length
        if length is None:
            if available < (cipher.block if cipher.hides_length else LENGTH):
                return None
            length = cipher.length(self._view, start)
            padded = length + LENGTH if cipher.hides_length else length
            if not cipher.block <= padded <= MAX_PACKET or padded % cipher.block:
                raise SshDisconnectedError(f"a packet cannot be {length} bytes long")
            self._length = length
        size = LENGTH + length + cipher.tag
        if available < size:
            return None
        stop = start + size
        opened = self._opened_end
        after = opened + length
        cipher.open(self.sequence, self._view, start, stop, self._opened[opened:after])
        self._start = stop
        self._opened_end = after
        self._length = None
        self.sequence = (self.sequence + 1) & _MASK
        self.opened_bytes += size
        end = after - self._opened[opened]
        opened += 1
        if end <= opened:
            raise SshDisconnectedError("a packet has no payload")
        payload = self._opened[opened:end]
        return payload if self.decompressor is None else self.decompressor.decompress(payload)

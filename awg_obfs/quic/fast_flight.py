"""Packets of STREAM frames, sealed one by one and given their headers all at once."""

# ruff: noqa: SLF001 -- part of the fast paths: see awg_obfs.quic.fast_connection.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportArgumentType=false

from __future__ import annotations

import struct
from typing import Any

from aioquic.quic.crypto import CryptoContext
from aioquic.quic.stream import QuicStream

from awg_obfs.quic.engine import Buffer
from awg_obfs.quic.fast_recovery import FastRecovery, SentFrame, StreamPacket

# A short header (RFC 9000, section 17.3.1): first byte, identifier, and a packet number of two bytes as aioquic's.
HEADER = struct.Struct(">B8sH")
TAG = 16
_FIXED_BIT = 0x40
_NUMBER_LENGTH_2 = 1
_SAMPLE = 16
# The sample starts four bytes after the start of the packet number, whatever its length.
_SAMPLE_AT = 2

# STREAM with an offset and a length (RFC 9000, section 19.8).
STREAM = 0x0E
FIN = 1

# Type, stream, offset, length: one shape for nearly all frames makes them quick to read. Numbers may be longer than
# they need to be (RFC 9000, section 16).
FRAME = struct.Struct(">BIIH")
FRAME_FAR = struct.Struct(">BIQH")
_FAR = 1 << 30
_FOUR_BYTES = 0x80000000
_EIGHT_BYTES = 0xC000000000000000
_TWO_BYTES = 0x4000


def frame_overhead(start: int) -> int:
    """Return the size of what precedes data that begins at offset *start* of its stream."""
    return FRAME.size if start < _FAR else FRAME_FAR.size


def frame_header(stream_id: int, start: int, length: int, *, fin: bool) -> bytes:
    """Return what precedes *length* bytes at offset *start* of a stream."""
    kind = STREAM | FIN if fin else STREAM
    if start < _FAR:
        return FRAME.pack(kind, _FOUR_BYTES | stream_id, _FOUR_BYTES | start, _TWO_BYTES | length)
    return FRAME_FAR.pack(kind, _FOUR_BYTES | stream_id, _EIGHT_BYTES | start, _TWO_BYTES | length)


class Flight:
    """The packets of one flush.

    Attributes:
      packets: What recovery has to know of them, by number.
      size: Their bytes altogether.

    """

    def __init__(
        self,
        recovery: FastRecovery,
        crypto: CryptoContext,
        cid: bytes,
        number: int,
        now: float,
        *,
        spin: bool,
    ) -> None:
        assert crypto.aead is not None
        assert crypto.hp is not None
        self.packets: dict[int, Any] = {}
        self.size = 0
        self._recovery = recovery
        self._encrypt = crypto.aead._aead.encrypt
        self._iv = crypto.aead._iv
        self._mask = crypto.hp._encryptor.update
        self._first = _FIXED_BIT | spin << 5 | crypto.key_phase << 2 | _NUMBER_LENGTH_2
        self._cid = cid
        self._number = self._begin = number
        self._now = now
        self._payloads: list[bytes] = []

    def add(self, pieces: list[Buffer], frames: list[SentFrame]) -> None:
        """Add a packet that holds *frames*, written as *pieces*."""
        number = self._number
        payload = self._encrypt(
            (self._iv ^ number).to_bytes(12, "big"),
            b"".join(pieces),
            HEADER.pack(self._first, self._cid, number & 0xFFFF),
        )
        size = len(payload) + HEADER.size
        self._payloads.append(payload)
        self.packets[number] = StreamPacket(self._recovery, number, self._now, size, frames)
        self.size += size
        self._number = number + 1

    def add_run(self, stream: QuicStream, start: int, length: int, count: int) -> None:
        """Add *count* packets with *length* bytes each from offset *start* of a stream."""
        encrypt, iv, first, cid, header = self._encrypt, self._iv, self._first, self._cid, HEADER.pack
        recovery, now, packets, payloads = self._recovery, self._now, self.packets, self._payloads
        sender = stream.sender
        stream_id = stream.stream_id or 0
        number = self._number
        size = HEADER.size + frame_overhead(start) + length + TAG
        with memoryview(sender._buffer) as data:
            at = start - sender._buffer_start
            for _ in range(count):
                stop = start + length
                payloads.append(
                    encrypt(
                        (iv ^ number).to_bytes(12, "big"),
                        frame_header(stream_id, start, length, fin=False) + data[at : at + length],
                        header(first, cid, number & 0xFFFF),
                    )
                )
                packets[number] = StreamPacket(recovery, number, now, size, [(stream, start, stop, False)])
                start = stop
                at += length
                number += 1
        self._number = number
        self.size += size * count

    def finish(self, datagrams: list[bytes]) -> None:
        """Put the headers in front and add everything to *datagrams* (RFC 9001, section 5.4)."""
        if not self._payloads:
            return
        masks = self._mask(
            b"".join([payload[_SAMPLE_AT : _SAMPLE_AT + _SAMPLE] for payload in self._payloads])
        )
        pack, first, cid, number = HEADER.pack, self._first, self._cid, self._begin
        at = 0
        for payload in self._payloads:
            hidden = number & 0xFFFF ^ (masks[at + 1] << 8 | masks[at + 2])
            datagrams.append(pack(first ^ masks[at] & 0x1F, cid, hidden) + payload)
            number += 1
            at += _SAMPLE

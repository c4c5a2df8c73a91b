"""Compression of packets' payloads (zlib of RFC 4253, section 6.2; begun by OpenSSH's name for it once logged in)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from tunnel_relay.errors import SshDisconnectedError

Buffer = bytes | bytearray | memoryview

# zlib's own choice, and OpenSSH's.
LEVEL = 6

_BROKEN = "a packet is not compressed as it should be"


class Compressor:
    """Compresses the payloads of one direction, which share what they have in common."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(LEVEL)

    def compress(self, parts: Iterable[Buffer]) -> bytes:
        """Return the payload of *parts*, one after another, so that the peer can read all of it."""
        done = [self._zlib.compress(part) for part in parts]
        done.append(self._zlib.flush(zlib.Z_PARTIAL_FLUSH))
        return b"".join(done)


class Decompressor:
    """Reads what the peer's compressor writes; no payload is longer than *most* bytes."""

    def __init__(self, most: int) -> None:
        self._zlib = zlib.decompressobj()
        self._most = most

    def decompress(self, payload: Buffer) -> memoryview:
        """Return the payload as it was.

        Raises:
          SshDisconnectedError: it is nonsense, or longer than it may be.

        """
        try:
            data = self._zlib.decompress(payload, self._most)
        except zlib.error as exc:
            raise SshDisconnectedError(_BROKEN) from exc
        if self._zlib.unconsumed_tail:
            raise SshDisconnectedError("a packet is longer than it may be, once it is decompressed")
        if not data:
            raise SshDisconnectedError(_BROKEN)
        return memoryview(data)

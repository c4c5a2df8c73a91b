"""How one packet is sealed and opened, under each kind of cipher (RFC 4253, section 6).

A *packet* here is ``length (4 bytes) · padding length (1) · payload · padding``, in the clear; what travels is
the same with the cipher applied and a tag behind it. The kinds differ in what they hide and authenticate:

===================  ================  ====================================================
kind                 length is hidden  the tag is over
===================  ================  ====================================================
`ClearPackets`       no                –  (before the first key exchange)
`GcmPackets`         no                everything (RFC 5647, as OpenSSH uses it)
`EtmPackets`         no                sequence number and ciphertext (OpenSSH's ``-etm``)
`MacPackets`         yes               sequence number and plaintext
===================  ================  ====================================================
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tunnel_relay.errors import SshDisconnectedError

if TYPE_CHECKING:
    import hashlib

# One of hashlib's constructors.
Digest = Callable[[], "hashlib._Hash"]

LENGTH = 4
GCM_TAG = 16
_COUNTER_MASK = (1 << 64) - 1
_TAMPERED = "a packet was changed on its way, or the two sides disagree about the keys"


class PacketCipher(Protocol):
    """Seals the packets of one direction, or opens them; holds that direction's keys."""

    block: int
    """Packets are padded to a multiple of this."""
    hides_length: bool
    """Whether the length is part of what is padded and encrypted."""
    tag: int
    """Bytes behind each packet."""

    def seal(self, sequence: int, packet: memoryview, out: memoryview) -> None:
        """Write *packet* sealed, and its tag, to *out*, which is exactly that long."""
        ...

    def length(self, head: memoryview) -> int:
        """Return what the packet that starts with *head* says of its length.

        *head* is as long as a block where the length is hidden, else `LENGTH` bytes; it is looked at once.
        """
        ...

    def open(self, sequence: int, sealed: memoryview) -> bytes:
        """Return the packet without its length; *sealed* ends with the tag.

        Raises:
          SshDisconnectedError: the tag does not fit.

        """
        ...


@attrs.define(eq=False)
class ClearPackets:
    """No cipher: the first key exchange happens in the open."""

    block: int = 8
    hides_length: bool = True
    tag: int = 0

    def seal(self, sequence: int, packet: memoryview, out: memoryview) -> None:
        """See `PacketCipher.seal`."""
        del sequence
        out[:] = packet

    def length(self, head: memoryview) -> int:
        """See `PacketCipher.length`."""
        return int.from_bytes(head[:LENGTH], "big")

    def open(self, sequence: int, sealed: memoryview) -> bytes:
        """See `PacketCipher.open`."""
        del sequence
        return bytes(sealed[LENGTH:])


class GcmPackets:
    """AES-GCM: the length is authenticated but not hidden (RFC 5647, section 7.3)."""

    __slots__ = ("_aead", "_counter", "_fixed", "block", "hides_length", "tag")

    def __init__(self, aead: AESGCM, nonce: bytes) -> None:
        self.block = 16
        self.hides_length = False
        self.tag = GCM_TAG
        self._aead = aead
        # RFC 5647, section 7.1: four fixed bytes and an invocation counter of eight.
        self._fixed = nonce[:4]
        self._counter = int.from_bytes(nonce[4:], "big")

    def seal(self, sequence: int, packet: memoryview, out: memoryview) -> None:
        """See `PacketCipher.seal`."""
        del sequence
        out[:LENGTH] = length = packet[:LENGTH]
        counter = self._counter
        self._counter = (counter + 1) & _COUNTER_MASK
        self._aead.encrypt_into(
            self._fixed + counter.to_bytes(8, "big"), packet[LENGTH:], length, out[LENGTH:]
        )

    def length(self, head: memoryview) -> int:
        """See `PacketCipher.length`."""
        return int.from_bytes(head, "big")

    def open(self, sequence: int, sealed: memoryview) -> bytes:
        """See `PacketCipher.open`."""
        del sequence
        counter = self._counter
        self._counter = (counter + 1) & _COUNTER_MASK
        try:
            return self._aead.decrypt(
                self._fixed + counter.to_bytes(8, "big"), sealed[LENGTH:], sealed[:LENGTH]
            )
        except InvalidTag as exc:
            raise SshDisconnectedError(_TAMPERED) from exc


@attrs.define(eq=False)
class Mac:
    """An HMAC over the sequence number and a packet (RFC 4253, section 6.4)."""

    key: bytes = attrs.field(repr=False)
    digest: Digest
    size: int

    def over(self, sequence: int, data: memoryview) -> bytes:
        """Return the tag of *data*."""
        mac = hmac.new(self.key, sequence.to_bytes(4, "big"), self.digest)
        mac.update(data)
        return mac.digest()[: self.size]

    def check(self, sequence: int, data: memoryview, tag: memoryview) -> None:
        """Raise `SshDisconnectedError` where *tag* is not the tag of *data*."""
        if not hmac.compare_digest(self.over(sequence, data), tag):
            raise SshDisconnectedError(_TAMPERED)


@attrs.define(eq=False)
class EtmPackets:
    """AES-CTR, then an HMAC over the ciphertext: the length travels in the clear."""

    _cipher: CipherContext = attrs.field(repr=False)
    _mac: Mac
    block: int = 16
    hides_length: bool = False
    tag: int = attrs.field(default=attrs.Factory(lambda self: self._mac.size, takes_self=True))

    def seal(self, sequence: int, packet: memoryview, out: memoryview) -> None:
        """See `PacketCipher.seal`."""
        end = len(packet)
        out[:LENGTH] = packet[:LENGTH]
        self._cipher.update_into(packet[LENGTH:], out[LENGTH:end])
        out[end:] = self._mac.over(sequence, out[:end])

    def length(self, head: memoryview) -> int:
        """See `PacketCipher.length`."""
        return int.from_bytes(head, "big")

    def open(self, sequence: int, sealed: memoryview) -> bytes:
        """See `PacketCipher.open`."""
        end = len(sealed) - self.tag
        self._mac.check(sequence, sealed[:end], sealed[end:])
        return self._cipher.update(sealed[LENGTH:end])


@attrs.define(eq=False)
class MacPackets:
    """AES-CTR and an HMAC over the plaintext: the length is hidden in the first block."""

    _cipher: CipherContext = attrs.field(repr=False)
    _mac: Mac
    block: int = 16
    hides_length: bool = True
    tag: int = attrs.field(default=attrs.Factory(lambda self: self._mac.size, takes_self=True))
    _first: bytes = attrs.field(default=b"", init=False, repr=False)

    def seal(self, sequence: int, packet: memoryview, out: memoryview) -> None:
        """See `PacketCipher.seal`."""
        end = len(packet)
        self._cipher.update_into(packet, out[:end])
        out[end:] = self._mac.over(sequence, packet)

    def length(self, head: memoryview) -> int:
        """See `PacketCipher.length`."""
        self._first = self._cipher.update(head)
        return int.from_bytes(self._first[:LENGTH], "big")

    def open(self, sequence: int, sealed: memoryview) -> bytes:
        """See `PacketCipher.open`."""
        end = len(sealed) - self.tag
        packet = self._first + self._cipher.update(sealed[len(self._first) : end])
        self._mac.check(sequence, memoryview(packet), sealed[end:])
        return packet[LENGTH:]

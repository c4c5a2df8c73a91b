"""How one packet is sealed and opened, under each kind of cipher (RFC 4253, section 6).

A *packet* here is ``length (4 bytes) · padding length (1) · payload · padding``, in the clear; what travels is
the same with the cipher applied and a tag behind it. The kinds differ in what they hide and authenticate:

===================  ================  =====================================================
kind                 length is hidden  the tag is over
===================  ================  =====================================================
`ClearPackets`       no                there is none (before the first key exchange)
`GcmPackets`         no                everything (RFC 5647, as OpenSSH uses it)
`EtmPackets`         no                sequence number and ciphertext (OpenSSH's ``-etm``)
`MacPackets`         yes               sequence number and plaintext
===================  ================  =====================================================
"""

from __future__ import annotations

import hmac
import struct
from typing import Protocol

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tunnel_relay.errors import SshDisconnectedError

LENGTH = 4
GCM_TAG = 16
_COUNTER_MASK = (1 << 64) - 1
_LENGTH = struct.Struct(">I")
_TAMPERED = "a packet was changed on its way, or the two sides disagree about the keys"


def clear_length(view: memoryview, start: int) -> int:
    """Return the length that stands at *start*, not encrypted."""
    (length,) = _LENGTH.unpack_from(view, start)
    return length


class PacketCipher(Protocol):
    """Seals the packets of one direction, or opens them; holds that direction's keys.

    Positions are given as *start* and *stop* in a buffer, because a slice of a view costs as much as a call.
    """

    block: int
    """Packets are padded to a multiple of this."""
    hides_length: bool
    """Whether the length is part of what is padded and encrypted."""
    tag: int
    """Bytes behind each packet."""

    def seal(self, sequence: int, packet: memoryview, size: int, out: memoryview, start: int) -> None:
        """Write the first *size* bytes of *packet* sealed, and a tag, to *out* from *start* on."""
        ...

    def length(self, view: memoryview, start: int) -> int:
        """Return what the packet at *start* says of its length; called once per packet.

        A block is there where the length is hidden, else `LENGTH` bytes.
        """
        ...

    def open(self, sequence: int, view: memoryview, start: int, stop: int, into: memoryview) -> None:
        """Write the sealed packet that lies between *start* and *stop* to *into*, without length and tag.

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

    def seal(self, sequence: int, packet: memoryview, size: int, out: memoryview, start: int) -> None:
        """See `PacketCipher.seal`."""
        del sequence
        out[start : start + size] = packet[:size]

    def length(self, view: memoryview, start: int) -> int:
        """See `PacketCipher.length`."""
        return clear_length(view, start)

    def open(self, sequence: int, view: memoryview, start: int, stop: int, into: memoryview) -> None:
        """See `PacketCipher.open`."""
        del sequence
        into[:] = view[start + LENGTH : stop]


class GcmPackets:
    """AES-GCM: the length is authenticated but not hidden (RFC 5647, section 7.3)."""

    __slots__ = ("_counter", "_decrypt_into", "_encrypt_into", "_fixed", "block", "hides_length", "tag")

    def __init__(self, aead: AESGCM, nonce: bytes) -> None:
        self.block = 16
        self.hides_length = False
        self.tag = GCM_TAG
        self._encrypt_into = aead.encrypt_into
        self._decrypt_into = aead.decrypt_into
        # RFC 5647, section 7.1: four fixed bytes and an invocation counter of eight.
        self._fixed = nonce[:4]
        self._counter = int.from_bytes(nonce[4:], "big")

    def seal(self, sequence: int, packet: memoryview, size: int, out: memoryview, start: int) -> None:
        """See `PacketCipher.seal`."""
        del sequence
        counter = self._counter
        self._counter = (counter + 1) & _COUNTER_MASK
        body = start + LENGTH
        length = packet[:LENGTH]
        out[start:body] = length
        nonce = self._fixed + counter.to_bytes(8, "big")
        self._encrypt_into(nonce, packet[LENGTH:size], length, out[body : start + size + GCM_TAG])

    def length(self, view: memoryview, start: int) -> int:
        """See `PacketCipher.length`."""
        return clear_length(view, start)

    def open(self, sequence: int, view: memoryview, start: int, stop: int, into: memoryview) -> None:
        """See `PacketCipher.open`."""
        del sequence
        counter = self._counter
        self._counter = (counter + 1) & _COUNTER_MASK
        body = start + LENGTH
        nonce = self._fixed + counter.to_bytes(8, "big")
        try:
            self._decrypt_into(nonce, view[body:stop], view[start:body], into)
        except InvalidTag as exc:
            raise SshDisconnectedError(_TAMPERED) from exc


@attrs.define(eq=False)
class Mac:
    """An HMAC over the sequence number and a packet (RFC 4253, section 6.4)."""

    key: bytes = attrs.field(repr=False)
    digest: str
    """The hash, as hashlib calls it."""
    size: int

    def over(self, sequence: int, data: bytes | memoryview) -> bytes:
        """Return the tag of *data*."""
        mac = hmac.new(self.key, sequence.to_bytes(4, "big"), self.digest)
        mac.update(data)
        return mac.digest()[: self.size]

    def check(self, sequence: int, data: bytes | memoryview, tag: memoryview) -> None:
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
    tag: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tag = self._mac.size

    def seal(self, sequence: int, packet: memoryview, size: int, out: memoryview, start: int) -> None:
        """See `PacketCipher.seal`."""
        end = start + size
        out[start : start + LENGTH] = packet[:LENGTH]
        out[start + LENGTH : end] = self._cipher.update(packet[LENGTH:size])
        out[end : end + self.tag] = self._mac.over(sequence, out[start:end])

    def length(self, view: memoryview, start: int) -> int:
        """See `PacketCipher.length`."""
        return clear_length(view, start)

    def open(self, sequence: int, view: memoryview, start: int, stop: int, into: memoryview) -> None:
        """See `PacketCipher.open`."""
        end = stop - self.tag
        self._mac.check(sequence, view[start:end], view[end:stop])
        into[:] = self._cipher.update(view[start + LENGTH : end])


@attrs.define(eq=False)
class MacPackets:
    """AES-CTR and an HMAC over the plaintext: the length is hidden in the first block."""

    _cipher: CipherContext = attrs.field(repr=False)
    _mac: Mac
    block: int = 16
    hides_length: bool = True
    tag: int = attrs.field(init=False)
    _first: bytes = attrs.field(default=b"", init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.tag = self._mac.size

    def seal(self, sequence: int, packet: memoryview, size: int, out: memoryview, start: int) -> None:
        """See `PacketCipher.seal`."""
        end = start + size
        out[start:end] = self._cipher.update(packet[:size])
        out[end : end + self.tag] = self._mac.over(sequence, packet[:size])

    def length(self, view: memoryview, start: int) -> int:
        """See `PacketCipher.length`."""
        self._first = self._cipher.update(view[start : start + self.block])
        return int.from_bytes(self._first[:LENGTH], "big")

    def open(self, sequence: int, view: memoryview, start: int, stop: int, into: memoryview) -> None:
        """See `PacketCipher.open`."""
        end = stop - self.tag
        packet = self._first + self._cipher.update(view[start + self.block : end])
        self._mac.check(sequence, packet, view[end:stop])
        into[:] = packet[LENGTH:]

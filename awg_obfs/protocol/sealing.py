"""The data path out: plaintexts become transport messages.

Written for speed: what is the same for all packets of a device, or of a container, is worked out once for it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from awg_obfs.protocol.keypairs import Keypair
from awg_obfs.protocol.messages import TRANSPORT_HEADER, Buffer
from awg_obfs.protocol.parameters import Parameters
from awg_obfs.protocol.randomness import Randomness
from awg_obfs.protocol.sizes import zero_fill

NONCE = struct.Struct("<4xQ")
"""ChaCha20-Poly1305's nonce is the packet's counter."""

_BLOCK_MASK = 15


class Sealer:
    """Seals containers: the packets that were given to the device at once, and leave it so.

    *mtu* bounds the zero fill as the reference's TUN device does, 0 for no bound. With *leading_fill* the zero bytes
    go before a plaintext instead of behind it. With *padded_keepalives* keepalives get S4 bytes in front as well.
    """

    __slots__ = ("_header", "_headers", "_leading_fill", "_mtu", "_padded_keepalives", "_padding", "_random")

    def __init__(
        self,
        parameters: Parameters,
        random: Randomness,
        mtu: int,
        *,
        leading_fill: bool,
        padded_keepalives: bool,
    ) -> None:
        self._random = random
        self._mtu = mtu
        self._leading_fill = leading_fill
        self._padded_keepalives = padded_keepalives
        self._padding = parameters.s4
        self._headers = parameters.h4
        self._header = parameters.h4.start if parameters.h4.width == 1 else None

    def seal(self, keypair: Keypair, plaintexts: Sequence[Buffer]) -> list[bytes]:
        """Return the datagrams of one container.

        The random stream is drawn from as the reference does: all headers first, then all paddings.
        """
        count = len(plaintexts)
        headers: Sequence[int]
        if self._header is not None:
            headers = (self._header,) * count
        elif count == 1:
            headers = (self._headers.generate(self._random),)
        else:
            headers = self._headers.generate_many(count, self._random)
        paddings = self._draw_paddings(plaintexts) if self._padding else None
        counter = keypair.counter
        keypair.counter += count
        remote_index, encrypt = keypair.remote_index, keypair.seal
        pack, pack_nonce, mtu = TRANSPORT_HEADER.pack, NONCE.pack, self._mtu or 65536
        datagrams: list[bytes] = []
        for number, plaintext in enumerate(plaintexts):
            length = len(plaintext)
            if length & _BLOCK_MASK or length > mtu:
                plaintext = self._fill(plaintext, length)
            head = pack(headers[number], remote_index, counter)
            if paddings is not None:
                head = paddings[number] + head
            datagrams.append(head + encrypt(pack_nonce(counter), plaintext, None))
            counter += 1
        return datagrams

    def _fill(self, plaintext: Buffer, length: int) -> bytes:
        zeros = bytes(zero_fill(length, self._mtu))
        return b"".join((zeros, plaintext) if self._leading_fill else (plaintext, zeros))

    def _draw_paddings(self, plaintexts: Sequence[Buffer]) -> list[bytes]:
        size = self._padding
        if len(plaintexts) == 1 and plaintexts[0]:
            return [self._random(size)]
        if self._padded_keepalives or all(plaintexts):
            drawn = self._random(size * len(plaintexts))
            return [drawn[start : start + size] for start in range(0, len(drawn), size)]
        return [self._random(size) if plaintext else b"" for plaintext in plaintexts]

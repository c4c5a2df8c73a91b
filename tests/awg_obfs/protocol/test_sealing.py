from __future__ import annotations

import random

import attrs
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.keypairs import Keypair
from awg_obfs.protocol.messages import TRANSPORT_HEADER
from awg_obfs.protocol.noise import Role
from awg_obfs.protocol.parameters import DEFAULT, Parameters
from awg_obfs.protocol.sealing import NONCE, Sealer
from tests.support.awg import RecordedRandomness
from tests.support.awg_world import OBFUSCATED, Couple

KEY = b"k" * 32


def keypair() -> Keypair:
    return Keypair(Couple.meet().to_server, Role.INITIATOR, (KEY, KEY), (1, 77), 0.0)


def sealer(
    parameters: Parameters = DEFAULT,
    mtu: int = 0,
    *,
    leading_fill: bool = False,
    padded_keepalives: bool = False,
    seed: str = "sealing",
) -> Sealer:
    return Sealer(
        parameters,
        RecordedRandomness(seed=seed),
        mtu,
        leading_fill=leading_fill,
        padded_keepalives=padded_keepalives,
    )


def opened(datagram: bytes, padding: int = 0) -> tuple[int, int, int, bytes]:
    """Return header, receiver index, counter and content."""
    header, index, counter = TRANSPORT_HEADER.unpack_from(datagram, padding)
    content = ChaCha20Poly1305(KEY).decrypt(NONCE.pack(counter), datagram[padding + 16 :], None)
    return header, index, counter, content


def test_packets_are_counted_and_filled_with_zeros() -> None:
    keys = keypair()
    first, second = sealer().seal(keys, [b"12345", b"x" * 16])
    (third,) = sealer().seal(keys, [memoryview(b"x" * 17)])

    assert opened(first) == (4, 77, 0, b"12345" + bytes(11))
    assert opened(second) == (4, 77, 1, b"x" * 16)
    assert opened(third) == (4, 77, 2, b"x" * 17 + bytes(15))
    assert keys.counter == 3


def test_zeros_can_go_in_front() -> None:
    (datagram,) = sealer(leading_fill=True).seal(keypair(), [bytearray(b"12345")])

    assert opened(datagram)[3] == bytes(11) + b"12345"


@pytest.mark.parametrize(
    ("mtu", "length", "content"),
    [(0, 1421, 1424), (1420, 1419, 1420), (1420, 1430, 1436), (1421, 1430, 1437)],
)
def test_the_fill_stops_at_the_mtu(mtu: int, length: int, content: int) -> None:
    (datagram,) = sealer(mtu=mtu).seal(keypair(), [b"x" * length])

    assert len(opened(datagram)[3]) == content


def test_every_packet_has_a_header_and_a_padding_of_its_own() -> None:
    datagrams = sealer(OBFUSCATED).seal(keypair(), [b"x" * 16] * 50)
    headers = {opened(datagram, 12)[0] for datagram in datagrams}

    assert len({datagram[:12] for datagram in datagrams}) == 50
    assert len(headers) > 40
    assert all(header in OBFUSCATED.h4 for header in headers)


@pytest.mark.parametrize("h4", [HeaderRange(400_000, 499_999), HeaderRange(9, 9), HeaderRange(0, 255)])
def test_the_stream_is_drawn_as_one_by_one(h4: HeaderRange) -> None:
    """All headers, then all paddings, none for keepalives."""
    parameters = attrs.evolve(OBFUSCATED, h4=h4)
    plaintexts = [b"x" * 16, b"", b"y" * 32]
    datagrams = sealer(parameters).seal(keypair(), plaintexts)

    stream = RecordedRandomness(seed="sealing")
    headers = [h4.generate(stream) for _ in plaintexts]
    paddings = [stream(12), b"", stream(12)]
    for datagram, padding, header in zip(datagrams, paddings, headers, strict=True):
        assert datagram.startswith(padding + header.to_bytes(4, "little"))


def test_keepalives_get_their_padding_if_asked_for() -> None:
    assert len(sealer(OBFUSCATED).seal(keypair(), [b""])[0]) == 32
    assert len(sealer(OBFUSCATED, padded_keepalives=True).seal(keypair(), [b""])[0]) == 44


def test_one_at_a_time_is_the_same_as_many() -> None:
    rng = random.Random(1)
    plaintexts = [rng.randbytes(rng.randrange(1, 100)) for _ in range(20)]
    single, many = attrs.evolve(OBFUSCATED, s4=0), keypair()
    together = sealer(single).seal(many, plaintexts)
    alone = keypair()
    one_by_one = sealer(single)

    assert [one_by_one.seal(alone, [plaintext])[0] for plaintext in plaintexts] == together

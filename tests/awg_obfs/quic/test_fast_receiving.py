"""The fast receiving side, given what no honest network gives."""

from __future__ import annotations

import random

import pytest

from awg_obfs.quic.engine import StreamData, Terminated
from awg_obfs.quic.fast_receiving import _whole_number  # pyright: ignore[reportPrivateUsage]
from tests.support.quic_engines import EnginePair, aioquic_client, aioquic_server, content, has_ended


def flight_of(pair: EnginePair, data: bytes) -> tuple[int, list[bytes]]:
    """Return a stream and the datagrams with *data* and its end, which have not arrived."""
    stream_id = pair.client.open_stream()
    pair.client.send_stream(stream_id, b"!", end=False)
    pair.run(0.1)
    pair.client.send_stream(stream_id, data, end=True)
    return stream_id, pair.client.datagrams_to_send(pair.now)


@pytest.fixture
def pair() -> EnginePair:
    made = EnginePair(aioquic_client(), aioquic_server())
    made.connect()
    return made


@pytest.mark.parametrize("seed", range(5))
def test_any_order_and_any_number_of_copies(pair: EnginePair, seed: int) -> None:
    rng = random.Random(seed)
    data = rng.randbytes(12_000)
    stream_id, datagrams = flight_of(pair, data)
    datagrams = datagrams * 3
    rng.shuffle(datagrams)
    for at in range(0, len(datagrams), 7):
        pair.server.receive(datagrams[at : at + 7], pair.now)
        pair.at_server += pair.server.take_events()
    assert content(pair.at_server, stream_id) == b"!" + data
    assert has_ended(pair.at_server, stream_id)
    assert sum(isinstance(event, StreamData) and event.end for event in pair.at_server) == 1


def test_what_was_tampered_with_is_dropped_and_the_rest_taken(pair: EnginePair) -> None:
    rng = random.Random(1)
    data = rng.randbytes(12_000)
    stream_id, datagrams = flight_of(pair, data)
    bad: list[bytes] = []
    for datagram in datagrams:
        for _ in range(20):
            changed = bytearray(datagram)
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            bad.append(bytes(changed))
        bad.append(datagram[: rng.randrange(len(datagram))])
    mixed = bad + datagrams
    rng.shuffle(mixed)
    pair.server.receive(mixed, pair.now)
    pair.at_server += pair.server.take_events()
    assert content(pair.at_server, stream_id) == b"!" + data
    assert not any(isinstance(event, Terminated) for event in pair.at_server)


def test_memoryviews_will_do(pair: EnginePair) -> None:
    stream_id, datagrams = flight_of(pair, b"x" * 5000)
    pair.server.receive([memoryview(datagram) for datagram in datagrams], pair.now)
    assert content(pair.server.take_events(), stream_id) == b"x" * 5000


@pytest.mark.parametrize("expected", [0, 1, 255, 65_535, 65_536, 1 << 20, (1 << 61) + 5])
@pytest.mark.parametrize("ahead", [-100, -1, 0, 1, 100])
def test_packet_numbers_are_told_from_their_last_two_bytes(expected: int, ahead: int) -> None:
    number = expected + ahead
    if number >= 0:
        assert _whole_number(number & 0xFFFF, 16, expected) == number


def test_the_example_of_the_standard() -> None:
    """RFC 9000, appendix A.3."""
    assert _whole_number(0x9B32, 16, 0xA82F30EA + 1) == 0xA82F9B32

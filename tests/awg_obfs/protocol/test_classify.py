"""The reference's own cases are in tests/conformance/test_awg_vectors.py."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.protocol.classify import Classifier, Kind, header_at
from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.parameters import DEFAULT
from tests.support.awg_world import OBFUSCATED

KINDS = [
    (Kind.INITIATION, 15, 148, 100_000),
    (Kind.RESPONSE, 18, 92, 299_999),
    (Kind.COOKIE_REPLY, 20, 64, 300_000),
    (Kind.TRANSPORT, 12, 16, 400_000),
    (Kind.TRANSPORT, 12, 1316, 499_999),
]


def datagram(padding: int, length: int, header: int) -> bytes:
    return bytes(padding) + header.to_bytes(4, "little") + bytes(length - 4)


@pytest.mark.parametrize(("kind", "padding", "length", "header"), KINDS)
def test_size_and_header_tell_what_it_is(kind: Kind, padding: int, length: int, header: int) -> None:
    received = datagram(padding, length, header) + bytes(8 if length == 16 else 0)

    assert Classifier(OBFUSCATED).classify(received) == (kind, padding)
    assert Classifier(OBFUSCATED).classify(memoryview(received)) == (kind, padding)
    assert Classifier(OBFUSCATED).classify(datagram(padding, length + 20, 99_999)) == (Kind.UNKNOWN, 0)


def test_transport_of_the_size_of_a_handshake_message_is_transport() -> None:
    received = datagram(12, 15 + 148 - 12, 400_001)

    assert len(received) in Classifier(OBFUSCATED).sizes
    assert Classifier(OBFUSCATED).classify(received) == (Kind.TRANSPORT, 12)


def test_equal_sizes_of_initiation_and_response_are_told_apart_by_header() -> None:
    clash = attrs.evolve(DEFAULT, s1=10, s2=66, h1=HeaderRange(50, 59), h2=HeaderRange(60, 69))

    assert Classifier(clash).classify(datagram(10, 148, 55)) == (Kind.INITIATION, 10)
    assert Classifier(clash).classify(datagram(66, 92, 65)) == (Kind.RESPONSE, 66)


@given(st.binary(max_size=400))
def test_anything_is_classified(received: bytes) -> None:
    kind, padding = Classifier(OBFUSCATED).classify(received)

    assert padding <= len(received)
    assert (kind is Kind.TOO_SMALL) == (len(received) < 32)


def test_headers_are_read_the_short_end_first() -> None:
    assert header_at(b"\0\1\2\3\4\5", 1) == 0x04030201

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.errors import SshDisconnectedError, SshError, SshHandshakeError
from tunnel_relay.protocol.ssh_fields import string, uint32
from tunnel_relay.protocol.ssh_numbers import CHANNEL_DATA
from tunnel_relay.ssh.ciphers import GcmPackets
from tunnel_relay.ssh.packets import (
    MAX_OUTPUT,
    MAX_PACKET,
    MAX_PAYLOAD,
    READ_SIZE,
    PacketReader,
    PacketWriter,
)

KEY = bytes(32)


def pair(*, encrypted: bool = True) -> tuple[PacketWriter, PacketReader]:
    writer, reader = PacketWriter(), PacketReader()
    if encrypted:
        writer.cipher = GcmPackets(AESGCM(KEY), bytes(12))
        reader.cipher = GcmPackets(AESGCM(KEY), bytes(12))
    return writer, reader


def sealed(writer: PacketWriter) -> bytes:
    taken = writer.take()
    data = bytes(taken)
    writer.give_back(taken)
    return data


def feed(reader: PacketReader, data: bytes) -> list[bytes]:
    space = reader.space()
    space[: len(data)] = data
    reader.filled(len(data))
    found: list[bytes] = []
    while (payload := reader.packet()) is not None:
        found.append(bytes(payload))
    return found


@pytest.mark.parametrize("encrypted", [False, True])
@given(payloads=st.lists(st.binary(min_size=1, max_size=300), max_size=8), cut=st.integers(1, 50))
def test_packets_survive_any_fragmentation(encrypted: bool, payloads: list[bytes], cut: int) -> None:
    writer, reader = pair(encrypted=encrypted)
    for payload in payloads:
        writer.write(payload[:1], payload[1:])
    data = sealed(writer)
    found: list[bytes] = []
    for start in range(0, len(data), cut):
        found += feed(reader, data[start : start + cut])
    assert found == payloads


def test_padding_is_as_the_rfc_wants_it() -> None:
    """RFC 4253, section 6: at least four bytes, and a multiple of eight with the length."""
    writer, _ = pair(encrypted=False)
    for size in range(1, 40):
        writer.write(b"x" * size)
        packet = sealed(writer)
        assert len(packet) % 8 == 0
        assert packet[4] >= 4


def test_data_are_cut_into_messages() -> None:
    writer, reader = pair()
    writer.write_data(7, memoryview(b"abcdefgh"), 3)
    head = bytes([CHANNEL_DATA]) + uint32(7)
    assert feed(reader, sealed(writer)) == [head + string(piece) for piece in (b"abc", b"def", b"gh")]


@pytest.mark.parametrize(("there", "limit"), [(10, 100), (100, 100), (7, 7), (1, 100), (100, 10), (0, 10)])
def test_data_are_read_to_where_they_are_sealed(there: int, limit: int) -> None:
    writer, reader = pair()
    source = bytes(range(there))

    def read(buffers: Sequence[memoryview]) -> int:
        left = source
        for buffer in buffers:
            piece, left = left[: len(buffer)], left[len(buffer) :]
            buffer[: len(piece)] = piece
        return len(source) - len(left)

    count = writer.read_data(7, read, 4, limit)
    assert count == min(there, limit)
    payloads = feed(reader, sealed(writer))
    assert b"".join(payload[9:] for payload in payloads) == source[:count]
    assert all(payload[5:9] == uint32(len(payload) - 9) for payload in payloads)


def test_reading_again_with_another_size_makes_other_places() -> None:
    writer, reader = pair()
    for most in (5, 9):

        def read(buffers: Sequence[memoryview], most: int = most) -> int:
            assert {len(buffer) for buffer in buffers} == {most}
            buffers[0][:] = b"x" * most
            return most

        assert writer.read_data(1, read, most, 2 * most) == most
    assert [len(payload) for payload in feed(reader, sealed(writer))] == [14, 18]


def test_what_fails_to_be_read_is_not_sealed() -> None:
    writer, _ = pair()

    def read(buffers: Sequence[memoryview]) -> int:
        raise BlockingIOError

    with pytest.raises(BlockingIOError):
        writer.read_data(1, read, 100, 100)
    assert writer.used == 0


def test_the_longest_payload_fits() -> None:
    writer, reader = pair()
    writer.write(b"x" * MAX_PAYLOAD)
    assert [len(payload) for payload in feed(reader, sealed(writer))] == [MAX_PAYLOAD]


def test_the_output_grows_up_to_a_limit() -> None:
    """A peer that makes us answer, and does not read, cannot have all our memory."""
    writer, _ = pair()
    piece = bytes(64 * 1024)
    while writer.used < MAX_OUTPUT - len(piece) - 1000:
        writer.write(piece)
    with pytest.raises(SshDisconnectedError, match="more answers"):
        writer.write(piece)
    assert writer.used <= MAX_OUTPUT
    taken = writer.take()
    writer.give_back(taken)
    writer.write(b"small again")
    assert len(writer.take()) < 100


def test_buffers_take_turns() -> None:
    writer, reader = pair()
    writer.write(b"one")
    first = writer.take()
    writer.write(b"two")
    found = feed(reader, bytes(first))
    writer.give_back(first)
    assert found + feed(reader, sealed(writer)) == [b"one", b"two"]


def test_the_bytes_under_one_key_are_counted() -> None:
    writer, reader = pair()
    writer.write(b"x" * 100)
    data = sealed(writer)
    feed(reader, data)
    assert writer.sealed_bytes == reader.opened_bytes == len(data)
    assert (writer.sequence, reader.sequence) == (1, 1)


@pytest.mark.parametrize("length", [0, 1, 15, 17, MAX_PACKET + 16, 2**32 - 16])
def test_impossible_lengths_end_the_connection_at_once(length: int) -> None:
    _, reader = pair()
    with pytest.raises(SshDisconnectedError, match="bytes long"):
        feed(reader, uint32(length) + bytes(100))


def test_a_packet_of_nothing_but_padding_is_refused() -> None:
    _, reader = pair(encrypted=False)
    with pytest.raises(SshDisconnectedError, match="no payload"):
        feed(reader, uint32(12) + b"\x0b" + bytes(11))


def test_there_is_always_room_to_read() -> None:
    writer, reader = pair()
    writer.write(b"x" * MAX_PAYLOAD)
    data = sealed(writer)
    for start in range(0, len(data), 1000):
        assert len(reader.space()) >= READ_SIZE - 1024
        feed(reader, data[start : start + 1000])


@given(st.binary(max_size=400))
def test_noise_gives_packets_or_an_ssh_error(noise: bytes) -> None:
    for encrypted in (False, True):
        _, reader = pair(encrypted=encrypted)
        with contextlib.suppress(SshError):
            feed(reader, noise)


def test_lines_end_with_or_without_a_carriage_return() -> None:
    reader = PacketReader()
    feed_raw(reader, b"hello\r\nSSH-2.0-x\nrest")
    assert reader.line(100) == b"hello"
    assert reader.line(100) == b"SSH-2.0-x"
    assert reader.line(100) is None
    assert reader.unread() == b"rest"


def test_a_line_that_never_ends_is_refused() -> None:
    reader = PacketReader()
    feed_raw(reader, b"x" * 101)
    with pytest.raises(SshHandshakeError, match="never ends"):
        reader.line(100)


def feed_raw(reader: PacketReader, data: bytes) -> None:
    reader.space()[: len(data)] = data
    reader.filled(len(data))

"""Compressed payloads, by themselves and with a real OpenSSH server."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sshd import HOST, SSHD, Sshd, start_sshd
from tunnel_relay.errors import SshDisconnectedError
from tunnel_relay.ssh.compression import Compressor, Decompressor
from tunnel_relay.ssh.hostkeys import KnownHosts
from tunnel_relay.ssh.keys import generate_identity
from tunnel_relay.ssh.packets import MAX_DATA, MAX_PAYLOAD, PacketReader, PacketWriter
from tunnel_relay.ssh.session import open_ssh_session
from tunnel_relay.ssh.settings import SshSettings

ME = generate_identity()
MOST = 1000


@given(st.lists(st.lists(st.binary(max_size=200), min_size=1, max_size=4).filter(any), max_size=20))
def test_what_is_compressed_is_read(payloads: list[list[bytes]]) -> None:
    compressor, decompressor = Compressor(), Decompressor(MOST)
    for parts in payloads:
        assert bytes(decompressor.decompress(compressor.compress(parts))) == b"".join(parts)


def test_what_was_sent_before_need_not_be_sent_again() -> None:
    compressor = Compressor()
    noise = os.urandom(500)
    assert len(compressor.compress([noise])) > 500
    assert len(compressor.compress([noise])) < 50


def test_a_payload_may_not_grow_beyond_its_bound() -> None:
    decompressor = Decompressor(MOST)
    assert len(decompressor.decompress(Compressor().compress([bytes(MOST)]))) == MOST
    with pytest.raises(SshDisconnectedError, match="longer than it may be"):
        Decompressor(MOST).decompress(zlib.compress(bytes(1_000_000)))


@pytest.mark.parametrize("payload", [b"nonsense", b"\x78\x9c", b"x"])
def test_nonsense_is_refused(payload: bytes) -> None:
    with pytest.raises(SshDisconnectedError, match="not compressed as it should be"):
        Decompressor(MOST).decompress(payload)


@given(st.binary(max_size=60))
def test_anything_is_a_payload_or_refused(payload: bytes) -> None:
    with suppress(SshDisconnectedError):
        assert len(Decompressor(MOST).decompress(payload)) <= MOST


def test_what_cannot_be_compressed_fits_into_a_packet() -> None:
    writer, reader = PacketWriter(), PacketReader()
    writer.compressor, reader.decompressor = Compressor(), Decompressor(1 << 20)
    data = os.urandom(MAX_PAYLOAD)
    writer.write(data)
    more = memoryview(os.urandom(2 * MAX_DATA))
    writer.write_data(7, more[:MAX_DATA], MAX_DATA)
    taken = bytes(writer.take())
    read = bytearray()
    for start in range(0, len(taken), 100_000):
        piece = taken[start : start + 100_000]
        reader.space()[: len(piece)] = piece
        reader.filled(len(piece))
        while (payload := reader.packet()) is not None:
            read += payload
    assert bytes(read[: len(data)]) == data
    assert bytes(read[len(data) + 9 :]) == bytes(more[:MAX_DATA])


@pytest.fixture(scope="module", params=["yes", "no"])
def sshd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if not SSHD:
        pytest.skip("sshd is not installed")
    options = {"Compression": str(request.param)}
    with start_sshd(tmp_path_factory.mktemp("sshd"), options=options, authorized=[ME.public_line]) as server:
        yield server


@pytest.mark.parametrize("rekey_bytes", [1 << 30, 100_000])
async def test_a_session_is_compressed_where_the_server_can(
    sshd: Sshd, tmp_path: Path, rekey_bytes: int
) -> None:
    """And goes on so when keys are exchanged."""
    server_can = "Compression yes" in (sshd.directory / "sshd_config").read_text()
    data = b"".join(b"line %d\n" % number for number in range(200_000)) + os.urandom(300_000)
    with trio.fail_after(30):
        stream = await trio.open_tcp_stream(HOST, sshd.port)
        async with open_ssh_session(
            stream,
            user=sshd.user,
            identities=[ME],
            host_keys=KnownHosts(tmp_path / "known_hosts"),
            host="host",
            settings=SshSettings(compression=True, rekey_bytes=rekey_bytes),
        ) as session:
            assert session.compressing == server_can
            received = bytearray()
            async with await session.run_command("cat") as command, trio.open_nursery() as nursery:

                async def send() -> None:
                    await command.send_all(data)
                    await command.send_eof()

                nursery.start_soon(send)
                while piece := await command.receive_some():
                    received += piece
            assert received == data
            assert (session.key_exchanges > 1) == (rekey_bytes < len(data))
            await session.ping()


def test_what_is_read_from_a_socket_is_compressed_too() -> None:
    writer, reader = PacketWriter(), PacketReader()
    writer.compressor, reader.decompressor = Compressor(), Decompressor(1 << 20)
    data = b"again and again " * 1000

    def read(buffers: Sequence[memoryview]) -> int:
        buffers[0][: len(data)] = data
        return len(data)

    assert writer.read_data(7, read, 10_000, 50_000) == len(data)
    taken = bytes(writer.take())
    assert len(taken) < 1000
    reader.space()[: len(taken)] = taken
    reader.filled(len(taken))
    lengths: list[int] = []
    while (payload := reader.packet()) is not None:
        lengths.append(len(payload) - 9)
    assert lengths == [10_000, 6_000]

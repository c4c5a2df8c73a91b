"""Packets of a flight, read by aioquic's own cipher and parser."""

from __future__ import annotations

import pytest
from aioquic.quic.crypto import CryptoContext
from aioquic.quic.stream import QuicStream
from aioquic.tls import CipherSuite

from awg_obfs.quic.congestion import NAME, register
from awg_obfs.quic.fast_flight import HEADER, TAG, Flight, frame_header, frame_overhead
from awg_obfs.quic.fast_frames import Frame, parse
from awg_obfs.quic.fast_recovery import FastRecovery

CID = b"identity"
FAR = 1 << 30


def cipher() -> CryptoContext:
    context = CryptoContext()
    context.setup(cipher_suite=CipherSuite.AES_128_GCM_SHA256, secret=b"s" * 32, version=1)
    return context


def begin(number: int, *, spin: bool = False) -> Flight:
    register()
    recovery = FastRecovery(
        congestion_control_algorithm=NAME,
        initial_rtt=0.1,
        max_datagram_size=1350,
        peer_completed_address_validation=True,
        send_probe=lambda: None,
    )
    return Flight(recovery, cipher(), CID, number, 5.0, spin=spin)


@pytest.mark.parametrize("start", [0, 5, FAR - 1, FAR, FAR * 1000])
@pytest.mark.parametrize("fin", [True, False])
def test_a_frame_s_header_is_as_long_as_announced_and_reads_as_meant(start: int, fin: bool) -> None:
    header = frame_header(4, start, 3, fin=fin)
    assert len(header) == frame_overhead(start)
    assert parse(header + b"abc")[0] == [(4, start, b"abc", fin)]


@pytest.mark.parametrize("number", [0, 70_000])
def test_the_peer_reads_what_was_added(number: int) -> None:
    flight = begin(number, spin=True)
    stream = QuicStream(stream_id=4)
    stream.sender.write(b"0123456789" * 300)
    flight.add([frame_header(0, 7, 2, fin=True), b"hi"], [])
    flight.add_run(stream, 0, 1000, 3)
    datagrams: list[bytes] = []
    flight.finish(datagrams)

    assert sum(map(len, datagrams)) == flight.size
    assert list(flight.packets) == list(range(number, number + 4))
    assert [packet.sent_bytes for packet in flight.packets.values()] == [len(each) for each in datagrams]
    peer = cipher()
    frames: list[Frame] = []
    for expected, datagram in enumerate(datagrams, number):
        header, plain, read, _ = peer.decrypt_packet(datagram, HEADER.size - 2, expected)
        assert read == expected
        assert header[0] & 0x20
        frames += parse(plain)[0]
    assert frames[0] == (0, 7, b"hi", True)
    assert [frame[1] for frame in frames[1:]] == [0, 1000, 2000]
    assert b"".join(frame[2] for frame in frames[1:]) == b"0123456789" * 300


def test_an_empty_flight_adds_nothing() -> None:
    datagrams: list[bytes] = []
    begin(0).finish(datagrams)
    assert datagrams == []
    assert TAG == 16

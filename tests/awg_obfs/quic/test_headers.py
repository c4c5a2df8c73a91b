"""What datagrams show without their keys."""

from __future__ import annotations

import pytest

from awg_obfs.quic.headers import (
    NOTICE_LENGTH,
    Names,
    begins_connection,
    destination,
    forgotten_connection,
    forgotten_notice,
    source,
)

OURS, THEIRS = b"A" * 8, b"B" * 8
VERSION = b"\0\0\0\1"
INITIAL = b"\xc3" + VERSION + b"\x08" + OURS + b"\x08" + THEIRS + bytes(30)
HANDSHAKE = b"\xe3" + INITIAL[1:]
SHORT = b"\x41" + OURS + bytes(30)


def test_an_initial_packet_begins_a_connection() -> None:
    assert begins_connection(INITIAL)
    assert not begins_connection(HANDSHAKE)
    assert not begins_connection(SHORT)
    assert not begins_connection(b"")


@pytest.mark.parametrize("datagram", [INITIAL, HANDSHAKE, memoryview(INITIAL)])
def test_long_headers_name_both_ends(datagram: bytes) -> None:
    assert destination(datagram) == OURS
    assert source(datagram) == THEIRS


def test_short_headers_name_whom_they_are_addressed_to() -> None:
    assert destination(SHORT) == OURS
    assert source(SHORT) == b""


def test_what_is_cut_short_names_nobody_and_raises_nothing() -> None:
    for whole in (INITIAL, SHORT):
        for length in range(len(whole)):
            cut = whole[:length]
            assert len(source(cut)) <= 8
            assert len(destination(cut)) <= 8
            begins_connection(cut)
            forgotten_notice(cut)
            forgotten_connection(cut)


def test_a_packet_of_a_forgotten_connection_is_answered_with_its_name() -> None:
    notice = forgotten_notice(SHORT)
    assert notice is not None
    assert len(notice) == NOTICE_LENGTH
    assert forgotten_connection(notice) == OURS
    assert forgotten_notice(notice) is None


@pytest.mark.parametrize("datagram", [INITIAL, HANDSHAKE, b"", SHORT[:8]])
def test_nothing_is_said_of_what_names_no_connection(datagram: bytes) -> None:
    assert forgotten_notice(datagram) is None
    assert forgotten_connection(datagram) is None


def test_names_are_learned_from_what_is_sent_and_received() -> None:
    server = Names()
    assert not server.are_strangers_to(INITIAL)
    server.learn(INITIAL, ours=False)
    assert not server.are_strangers_to(INITIAL)
    server.learn(b"\xc3" + VERSION + b"\x08" + THEIRS + b"\x08" + b"C" * 8 + bytes(30), ours=True)
    assert server.ours == {OURS, b"C" * 8}
    assert server.are_strangers_to(b"\xc3" + VERSION + b"\x08" + b"D" * 8 + b"\x08" + THEIRS)
    server.learn(b"\x41" + THEIRS + bytes(30), ours=True)
    assert server.peer == THEIRS

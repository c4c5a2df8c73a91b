from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.protocol.smux import LAST_ID, MAX_DATA, Command, Smux, SmuxError, StreamClosed, StreamData


def frame(command: int, stream_id: int, data: bytes = b"", version: int = 1) -> bytes:
    return struct.pack("<BBHI", version, command, len(data), stream_id) + data


def events(smux: Smux) -> list[StreamData | StreamClosed]:
    found: list[StreamData | StreamClosed] = []
    while (event := smux.next_event()) is not None:
        found.append(event)
    return found


def test_streams_have_odd_ids_from_three() -> None:
    smux = Smux()
    assert [smux.open_stream() for _ in range(3)] == [3, 5, 7]
    assert smux.data_to_send() == frame(0, 3) + frame(0, 5) + frame(0, 7)
    assert smux.data_to_send() == b""
    assert smux.streams == 3


def test_data_are_cut_into_frames() -> None:
    smux = Smux()
    stream = smux.open_stream()
    smux.data_to_send()
    data = bytes(range(256)) * 300
    smux.send_data(stream, memoryview(data))
    expected = [data[at : at + MAX_DATA] for at in range(0, len(data), MAX_DATA)]
    assert smux.data_to_send() == b"".join(frame(2, stream, piece) for piece in expected)


@given(st.lists(st.integers(1, 30), max_size=30))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    smux = Smux()
    for _ in range(2):
        smux.open_stream()
    data = frame(2, 3, b"hello") + frame(3, 0) + frame(2, 5, b"x" * 20) + frame(2, 3, b"") + frame(1, 3)
    seen: list[StreamData | StreamClosed] = []
    for cut in [*cuts, len(data)]:
        smux.receive_data(data[:cut])
        seen += events(smux)
        data = data[cut:]
    assert seen == [StreamData(3, b"hello"), StreamData(5, b"x" * 20), StreamClosed(3)]


def test_a_fin_of_the_peer_is_answered_and_ends_both_ways() -> None:
    smux = Smux()
    stream = smux.open_stream()
    smux.data_to_send()
    smux.receive_data(frame(1, stream))
    assert events(smux) == [StreamClosed(stream)]
    assert smux.data_to_send() == frame(1, stream)
    smux.send_data(stream, b"too late")
    smux.close_stream(stream)
    assert smux.data_to_send() == b""


def test_what_comes_for_a_closed_stream_is_dropped() -> None:
    smux = Smux()
    stream = smux.open_stream()
    smux.close_stream(stream)
    smux.receive_data(frame(2, stream, b"late") + frame(1, stream) + frame(2, 99, b"whose?"))
    assert events(smux) == []
    assert smux.streams == 0


@pytest.mark.parametrize("data", [frame(0, 3, version=2), frame(4, 3), b"SSH-2.0-nonsense"])
def test_what_is_no_smux_is_refused(data: bytes) -> None:
    with pytest.raises(SmuxError):
        Smux().receive_data(data)


@given(st.binary(max_size=100))
def test_nothing_else_is_raised(data: bytes) -> None:
    with suppress(SmuxError):
        Smux().receive_data(data)


def test_ids_run_out() -> None:
    smux = Smux(next_id=LAST_ID)
    assert smux.open_stream() == LAST_ID
    with pytest.raises(SmuxError, match="ids"):
        smux.open_stream()


def test_commands_are_the_reference_s() -> None:
    assert [command.name for command in sorted(Command)] == ["SYN", "FIN", "PSH", "NOP"]

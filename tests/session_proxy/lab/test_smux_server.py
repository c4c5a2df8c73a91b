from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.lab.smux_server import Command, SmuxError, SmuxFrame, SmuxReader

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/ssm.json").read_text())
FRAMES = [
    SmuxFrame(Command.SYN, 3),
    SmuxFrame(Command.PSH, 3, b"hello"),
    SmuxFrame(Command.NOP, 0),
    SmuxFrame(Command.FIN, 3),
]


@pytest.mark.parametrize("vector", [vector for vector in VECTORS["smux"] if "data_hex" in vector])
def test_the_plugins_frames_are_read_and_written_alike(vector: dict[str, str]) -> None:
    data = bytes.fromhex(vector["header_hex"] + vector["data_hex"])
    (frame,) = SmuxReader().receive_data(data)

    assert (frame.command.name, frame.stream) == (vector["cmd"], vector["sid"])
    assert frame.data.hex() == vector["data_hex"]
    assert frame.encode() == data


@given(st.lists(st.integers(1, 30)))
def test_frames_are_the_same_however_the_bytes_are_cut(steps: list[int]) -> None:
    data = b"".join(frame.encode() for frame in FRAMES)
    reader = SmuxReader()
    found: list[SmuxFrame] = []
    for step in [*steps, len(data)]:
        found += reader.receive_data(data[:step])
        data = data[step:]

    assert found == FRAMES


@pytest.mark.parametrize("data", [b"\x02\x00" + bytes(6), b"\x01\x04" + bytes(6), b"GET / HTTP/1.1"])
def test_what_is_no_smux_is_refused(data: bytes) -> None:
    with pytest.raises(SmuxError):
        list(SmuxReader().receive_data(data))


@given(st.binary())
def test_nothing_else_is_raised(data: bytes) -> None:
    with suppress(SmuxError):
        list(SmuxReader().receive_data(data))

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.protocol import websocket_frames
from tunnel_relay.protocol.websocket_frames import FrameSplitter, OtherFrame, binary_frame

MASK = b"\x01\x02\x03\x04"


def split(splitter: FrameSplitter, data: bytes, cuts: list[int]) -> list[bytes | OtherFrame]:
    found: list[bytes | OtherFrame] = []
    for cut in [*cuts, len(data)]:
        splitter.receive_data(data[:cut])
        while (frame := splitter.next_frame()) is not None:
            found.append(frame)
        data = data[cut:]
    return found


@given(
    sizes=st.lists(st.sampled_from([0, 1, 125, 126, 127, 65535, 65536, 70000]), max_size=4),
    cuts=st.lists(st.integers(1, 70000), max_size=5),
    masked=st.booleans(),
)
def test_messages_come_out_whole_however_they_are_cut(
    sizes: list[int], cuts: list[int], *, masked: bool
) -> None:
    messages = [bytes(index % 251 for index in range(size)) for size in sizes]
    data = b"".join(binary_frame(message, MASK if masked else None) for message in messages)
    assert split(FrameSplitter(masked, 100_000), data, cuts) == messages


def test_the_bytes_are_rfc_6455_s() -> None:
    """Section 5.7 has them, as text frames."""
    assert binary_frame(b"Hello", None).hex() == "820548656c6c6f"
    assert binary_frame(b"Hello", bytes.fromhex("37fa213d")).hex() == "828537fa213d7f9f4d5158"
    assert binary_frame(bytes(256), None)[:4].hex() == "827e0100"
    assert binary_frame(bytes(65536), None)[:10].hex() == "827f0000000000010000"


@given(st.binary(max_size=100), st.binary(min_size=4, max_size=4))
def test_masking_is_xor_with_or_without_the_c_code(data: bytes, mask: bytes) -> None:
    expected = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
    assert websocket_frames.mask_by_integer(data, mask) == expected
    assert websocket_frames.apply_mask(data, mask) == expected


def test_other_frames_are_cut_out_whole() -> None:
    ping, text, close = b"\x89\x04ping", b"\x81\x02hi", b"\x88\x02\x03\xe8"
    data = binary_frame(b"a", None) + ping + text + binary_frame(b"b", None) + close
    for step in (1, 3, len(data)):
        cuts = [step] * (len(data) // step)
        expected = [b"a", OtherFrame(ping), OtherFrame(text), b"b", OtherFrame(close)]
        assert split(FrameSplitter(masked=False, max_payload=100), data, cuts) == expected


def test_nothing_overtakes_a_fragmented_message() -> None:
    start, more, end = b"\x02\x01a", b"\x00\x01b", b"\x80\x01c"
    ping, whole = b"\x89\x00", binary_frame(b"x", None)
    found = split(FrameSplitter(masked=False, max_payload=100), start + ping + more + whole + end + whole, [])
    # A whole message between fragments breaks the rules, which the library finds out.
    others = [OtherFrame(each) for each in (start, ping, more, whole)]
    assert found[:4] == others
    assert found[-1] in (b"x", OtherFrame(whole))


@pytest.mark.parametrize(
    "bad",
    [
        binary_frame(b"unmasked", None),
        b"\x82\xff" + (1 << 40).to_bytes(8, "big"),
        binary_frame(bytes(101), MASK),
    ],
)
def test_what_is_against_the_rules_is_left_to_the_library_for_good(bad: bytes) -> None:
    splitter = FrameSplitter(masked=True, max_payload=100)
    good = binary_frame(b"x", MASK)
    found = split(splitter, good + bad + good, [])
    assert found[0] == b"x"
    assert all(isinstance(frame, OtherFrame) for frame in found[1:])
    assert b"".join(frame.data for frame in found[1:] if isinstance(frame, OtherFrame)) == bad + good


@given(data=st.binary(max_size=60), masked=st.booleans())
def test_no_bytes_are_lost_or_made_up(data: bytes, *, masked: bool) -> None:
    splitter = FrameSplitter(masked, 50)
    splitter.receive_data(data)
    size = 0
    while (frame := splitter.next_frame()) is not None:
        size += (
            len(frame.data)
            if isinstance(frame, OtherFrame)
            else len(binary_frame(frame, MASK if masked else None))
        )
    assert size <= len(data)

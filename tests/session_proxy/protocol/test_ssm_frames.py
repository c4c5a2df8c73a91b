from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.protocol.ssm_frames import (
    HEADER,
    HEADER_LENGTH,
    SERVICE_HEADER_LENGTH,
    Flag,
    Frame,
    MalformedFrameError,
    MessageType,
    PayloadType,
)

FRAME = Frame(
    message_type=MessageType.INPUT_STREAM_DATA,
    message_id=uuid.UUID("00112233-4455-4677-8899-aabbccddeeff"),
    created_date=1_700_000_000_123,
    sequence_number=7,
    payload_type=PayloadType.OUTPUT,
    payload=b"a secret",
)

frames = st.builds(
    Frame,
    message_type=st.sampled_from([*map(str, MessageType), "x"]).filter(
        lambda name: "publication" not in name
    ),
    message_id=st.uuids(),
    created_date=st.integers(1, 2**64 - 1),
    sequence_number=st.integers(-(2**63), 2**63 - 1),
    flags=st.integers(0, 2**64 - 1),
    payload_type=st.integers(0, 2**32 - 1),
    payload=st.binary(min_size=1, max_size=200),
    schema_version=st.integers(0, 2**32 - 1),
)


@given(frames)
def test_what_is_encoded_is_decoded(frame: Frame) -> None:
    assert Frame.decode(frame.encode()) == frame


def test_the_layout_is_the_specification_s() -> None:
    message = FRAME.encode()
    assert message[:4] == (116).to_bytes(4, "big")
    assert message[4:36] == b"input_stream_data".ljust(32)
    assert message[48:56] == (7).to_bytes(8, "big")
    assert message[64:80].hex() == "8899aabbccddeeff0011223344554677"
    assert message[112:116] == (1).to_bytes(4, "big")
    assert message[116:120] == (8).to_bytes(4, "big")
    assert message[120:] == b"a secret"


def test_the_service_s_shape_has_no_payload_type() -> None:
    frame = Frame(
        message_type=MessageType.CHANNEL_CLOSED,
        message_id=FRAME.message_id,
        created_date=1,
        payload=b'{"Output":""}',
        header_length=SERVICE_HEADER_LENGTH,
    )
    message = frame.encode()
    assert len(message) == 116 + len(frame.payload)
    assert message[4:36] == b"channel_closed".ljust(32, b"\0")
    assert Frame.decode(message) == frame


def test_a_payload_is_not_shown() -> None:
    assert "secret" not in repr(FRAME)
    assert "8 bytes" in repr(FRAME)


@pytest.mark.parametrize("length", [0, 1, 111, 129, 1000, 2**31, 2**32 - 1])
def test_a_header_length_that_does_not_fit_is_refused(length: int) -> None:
    """Past the end the reference panics; before the header's own end it takes the header for the payload."""
    message = bytearray(FRAME.encode())
    message[:4] = length.to_bytes(4, "big")
    with pytest.raises(MalformedFrameError):
        Frame.decode(message)


def test_the_length_in_the_header_is_not_trusted() -> None:
    message = bytearray(FRAME.encode())
    message[116:120] = (2**32 - 1).to_bytes(4, "big")
    assert Frame.decode(message).payload == b"a secret"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_malformed(data: bytes) -> None:
    try:
        frame = Frame.decode(data)
    except MalformedFrameError:
        return
    assert len(frame.payload) <= len(data)


@given(st.integers(0, 127), st.integers(0, 7))
def test_a_flipped_bit_in_the_payload_or_digest_is_noticed(at: int, bit: int) -> None:
    message = bytearray(FRAME.encode())
    if not (80 <= at < 112 or at >= 120):
        return
    message[at] ^= 1 << bit
    with pytest.raises(MalformedFrameError, match="digest"):
        Frame.decode(message)


def test_flags_are_four_bytes() -> None:
    assert [flag.to_payload() for flag in Flag] == [b"\0\0\0\1", b"\0\0\0\2", b"\0\0\0\3"]
    assert HEADER.size == HEADER_LENGTH + 4

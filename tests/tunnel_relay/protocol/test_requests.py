"""Requests and responses as they travel."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.frames import MAX_PAYLOAD, FrameType
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.requests import (
    MAX_REQUEST,
    Cutter,
    Request,
    Response,
    Status,
    begins,
    read_opening,
)

printable = st.characters(categories=("L", "N", "P"))
identities = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Return any request."""
    return Request(
        id=draw(identities),
        target=draw(st.text(printable, min_size=1, max_size=300)),
        payload=bytes(draw(st.integers(0, 3 * MAX_PAYLOAD))),
        most=draw(st.integers(0, MAX_REQUEST)),
        time=draw(st.integers(1, 86_400_000)) / 1000,
    )


@st.composite
def responses(draw: st.DrawFn) -> Response:
    """Return any response."""
    return Response(
        id=draw(identities),
        status=draw(st.sampled_from(Status)),
        payload=bytes(draw(st.integers(0, 3 * MAX_PAYLOAD))),
        detail=draw(st.text(printable, max_size=255)),
    )


def cut(message: Request | Response) -> tuple[FrameType, list[bytes]]:
    """Return all pieces of *message*."""
    cutter = Cutter(message)
    pieces: list[bytes] = []
    while not cutter.done:
        assert cutter.begun == bool(pieces)
        pieces.append(cutter.next())
    return cutter.kind, pieces


@given(st.one_of(requests(), responses()))
def test_what_is_cut_is_put_together(message: Request | Response) -> None:
    kind, pieces = cut(message)
    assert [begins(piece) for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert all(len(piece) == MAX_PAYLOAD for piece in pieces[:-1])
    assert len(pieces[-1]) <= MAX_PAYLOAD
    opening = read_opening(kind, memoryview(pieces[0]))
    assert opening.length == len(message.payload)
    payload = bytes(opening.message.payload) + b"".join(piece[1:] for piece in pieces[1:])
    assert payload == message.payload
    assert kind is (FrameType.REQUEST if isinstance(message, Request) else FrameType.RESPONSE)
    for name in ("id", "target", "most", "time", "status", "detail"):
        assert getattr(opening.message, name, None) == getattr(message, name, None)


def test_heads_are_what_they_say() -> None:
    request = Request(id="id", target="db", payload=b"hello", most=2, time=1.5)
    assert cut(request)[1] == [
        bytes.fromhex("01 00000005 00000002 000005dc") + b"\x00\x02id\x00\x02db" + b"hello"
    ]
    response = Response(id="id", status=Status.REFUSED, detail="no")
    assert cut(response)[1] == [bytes.fromhex("01 00000000 04") + b"\x00\x02id\x00\x02no"]


def test_nothing_of_a_payload_is_shown() -> None:
    request = Request(id="id", target="db", payload=b"secret")
    assert "secret" not in repr(request)
    assert "secret" not in repr(Response(id="id", status=Status.DONE, payload=b"secret"))


@given(st.sampled_from([FrameType.REQUEST, FrameType.RESPONSE]), st.binary(max_size=100))
def test_anything_is_a_head_or_refused(kind: FrameType, piece: bytes) -> None:
    try:
        opening = read_opening(kind, b"\x01" + piece)
    except RelayProtocolError:
        return
    assert len(opening.message.payload) <= opening.length <= MAX_REQUEST
    assert len(opening.message.payload) <= len(piece)


def head(
    length: int = 5, most: int = 2, milliseconds: int = 1, texts: bytes = b"\x00\x01i\x00\x01t"
) -> bytes:
    """Return the first piece of a request."""
    return struct.pack(">BIII", 1, length, most, milliseconds) + texts


@pytest.mark.parametrize(
    ("piece", "words"),
    [
        (b"", "goes on that has not begun"),
        (b"\x00abc", "goes on that has not begun"),
        (head()[:12], "cut off"),
        (head(texts=b""), "cut off"),
        (head(texts=b"\x00\x09i"), "cut off"),
        (head(texts=b"\x00\x00\x00\x01t"), "the id of a request"),
        (head(texts=b"\x00\x02i \x00\x01t"), "the id of a request"),
        (head(texts=b"\x00\x02\xc3\xa4\x00\x01t"), "the id of a request"),
        (head(texts=b"\x00\x41" + b"i" * 65 + b"\x00\x01t"), "the id of a request"),
        (head(texts=b"\x00\x01i\x00\x01\n"), "the target of a request"),
        (head(texts=b"\x00\x01i\x01\x2d" + b"t" * 301), "the target of a request"),
        (head(length=MAX_REQUEST + 1), "a REQUEST of 16777217 bytes"),
        (head(length=2) + b"abc", "a REQUEST of 2 bytes"),
        (head(most=MAX_REQUEST + 1), "too long"),
        (head(milliseconds=0), "more than 0 seconds"),
        (head(milliseconds=86_400_001), "more than 0 seconds"),
    ],
)
def test_what_is_no_request_is_refused(piece: bytes, words: str) -> None:
    with pytest.raises(RelayProtocolError, match=words):
        read_opening(FrameType.REQUEST, piece)


def test_a_request_that_is_too_long_is_not_made() -> None:
    with pytest.raises(ValueError, match="16777217 bytes is too long"):
        Request(id="i", target="t", payload=bytes(MAX_REQUEST + 1))


def test_what_a_response_says_may_stand_in_a_log() -> None:
    piece = struct.pack(">BIB", 1, 0, 99) + b"\x00\x01i\x00\x05a\x1b[0m"
    message = read_opening(FrameType.RESPONSE, piece).message
    assert message == Response(id="i", status=Status.FAILED, detail="a?[0m")
    long = Response(id="i", status=Status.BROKEN, detail="ä" * 1000)
    message = read_opening(FrameType.RESPONSE, Cutter(long).next()).message
    assert message == Response(id="i", status=Status.BROKEN, detail="ä" * 255)


def test_what_streams_are_refused_with_has_the_same_numbers() -> None:
    """A far end passes the reason for which a stream was refused on."""
    for status in Status:
        if 0 < status <= 8 and status not in (Status.NO_SUCH_TARGET, Status.BUSY):
            assert Reason(status).name == status.name

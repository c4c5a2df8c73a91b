"""The transcripts below are written as the SOCKS4 and SOCKS4a memoranda describe them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.errors import ClientProtocolError
from session_proxy.protocol.socks4 import MAX_FIELD, MAX_MESSAGE, Reply, Socks4Connect, Socks4Server
from session_proxy.target import Target

SOCKS4 = b"\x04\x01\x00\x50\xc0\x00\x02\x07fred\x00"  # connect, port 80, 192.0.2.7, user
SOCKS4A = b"\x04\x01\x01\xbb\x00\x00\x00\x01fred\x00example.com\x00"


def drive(pieces: Iterable[bytes]) -> tuple[Socks4Server, Socks4Connect | None]:
    server = Socks4Server()
    event = None
    for piece in pieces:
        server.receive_data(piece)
        event = server.next_event() or event
    return server, event


@pytest.mark.parametrize("step", [*range(1, 12), 1000])
@pytest.mark.parametrize(
    ("data", "target"), [(SOCKS4, Target("192.0.2.7", 80)), (SOCKS4A, Target("example.com", 443))]
)
def test_a_request_is_the_same_in_any_fragmentation(data: bytes, target: Target, step: int) -> None:
    server, event = drive(data[at : at + step] for at in range(0, len(data), step))

    assert event == Socks4Connect(target, b"fred")
    server.receive_data(b"early")
    assert server.next_event() is None
    assert server.trailing_data() == b"early"


@pytest.mark.parametrize(
    ("reply", "code"), [(Reply.GRANTED, 90), (Reply.REJECTED, 91), (Reply.USER_NOT_CONFIRMED, 93)]
)
def test_a_reply_is_eight_bytes(reply: Reply, code: int) -> None:
    server, _ = drive([SOCKS4 + b"early"])
    server.reply(reply)
    assert server.data_to_send() == bytes((0, code, 0, 0, 0, 0, 0, 0))
    assert server.data_to_send() == b""
    assert server.trailing_data() == b"early"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (SOCKS4.replace(b"\x04\x01", b"\x04\x02"), "BIND is not supported"),
        (SOCKS4.replace(b"\x04\x01", b"\x04\x07"), "command 7 is not supported"),
        (SOCKS4.replace(b"\x00\x50", b"\x00\x00"), "0 is not a port"),
        (SOCKS4A.replace(b"example.com", b"exa mple"), "not a host name"),
        (SOCKS4A.replace(b"example.com", b""), "the host is empty"),
        (SOCKS4A.replace(b"example.com", b"\xff\xff"), "not a host name"),
        (SOCKS4.replace(b"fred", b"f" * (MAX_FIELD + 1)), "more than 255"),
        (SOCKS4A.replace(b"example.com", b"e" * (MAX_FIELD + 1)), "more than 255"),
        (SOCKS4.replace(b"fred\x00", b"f" * MAX_MESSAGE), "too long"),
    ],
)
def test_what_is_not_there_is_rejected(data: bytes, message: str) -> None:
    server = Socks4Server()
    server.receive_data(data)

    with pytest.raises(ClientProtocolError, match=message):
        server.next_event()

    assert server.data_to_send()[:2] == b"\x00\x5b"
    assert server.next_event() is None


def test_another_version_is_no_socks4() -> None:
    with pytest.raises(ClientProtocolError, match="does not speak SOCKS4"):
        drive([b"\x05\x01\x00"])


def test_a_client_that_hangs_up_is_an_error() -> None:
    with pytest.raises(ClientProtocolError, match="hung up"):
        drive([SOCKS4[:5], b""])


def test_an_endless_user_is_cut_off() -> None:
    """However slowly it comes, a field without an end does not grow for ever."""
    with pytest.raises(ClientProtocolError, match="too long"):
        drive([SOCKS4[:8], *[b"x"] * MAX_MESSAGE])


@given(
    st.lists(
        st.one_of(st.sampled_from([SOCKS4[:8], SOCKS4A[:8], b"\x00"]), st.binary(min_size=1, max_size=600)),
        max_size=6,
    )
)
def test_arbitrary_bytes_raise_nothing_but_the_documented_error(pieces: list[bytes]) -> None:
    with contextlib.suppress(ClientProtocolError):
        drive(pieces)

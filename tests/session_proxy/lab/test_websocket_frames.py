from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, Request, TextMessage

from session_proxy.lab import websocket_frames
from session_proxy.lab.websocket_frames import (
    Message,
    MessageReader,
    Opcode,
    WebSocketProtocolError,
    encode_close,
    encode_frame,
    render_upgrade,
)

MASK = b"\x01\x02\x03\x04"


def masked(first: int, payload: bytes) -> bytes:
    """A short frame as a client sends it."""
    body = bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))
    return bytes((first, 0x80 | len(payload))) + MASK + body


def open_wsproto() -> WSConnection:
    """A client of another make, connected."""
    client = WSConnection(ConnectionType.CLIENT)
    request = client.send(Request(host="lab", target="/"))
    lines = request.decode().split("\r\n")[1:]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}
    client.receive_data(render_upgrade(headers))
    assert isinstance(next(iter(client.events())), AcceptConnection)
    return client


@given(st.lists(st.sampled_from([0, 1, 125, 126, 300, 65535, 65536]), max_size=4), st.integers(1, 70000))
def test_what_another_library_sends_is_read_however_it_is_cut(sizes: list[int], step: int) -> None:
    client = open_wsproto()
    payloads = [(bytes(range(256)) * 257)[:size] for size in sizes]
    data = b"".join(client.send(BytesMessage(payload)) for payload in payloads)
    data += client.send(TextMessage("text")) + client.send(Ping(b"keepalive"))
    # The smallest steps only at the end, where they meet heads: they are slow.
    cuts = sorted({*range(0, len(data), max(step, 500)), *range(max(0, len(data) - 200), len(data), step)})
    reader = MessageReader()
    found: list[Message] = []
    for start, end in itertools.pairwise([*cuts, len(data)]):
        found += reader.receive_data(data[start:end])

    assert found == [
        *(Message(Opcode.BINARY, payload) for payload in payloads),
        Message(Opcode.TEXT, b"text"),
        Message(Opcode.PING, b"keepalive"),
    ]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_another_library_reads_what_is_sent(size: int) -> None:
    client = open_wsproto()
    payload = bytes(range(256)) * (size // 256 + 1)
    client.receive_data(encode_frame(Opcode.BINARY, payload[:size]))
    client.receive_data(encode_close(1001, "ä" * 100))
    events: list[Event] = list(client.events())

    received = b"".join(bytes(event.data) for event in events if isinstance(event, BytesMessage))
    assert received == payload[:size]
    (closing,) = (event for event in events if isinstance(event, CloseConnection))
    assert closing.code == 1001
    assert closing.reason == "ä" * 61


def test_fragments_are_put_together_and_control_frames_may_come_between() -> None:
    data = masked(0x02, b"one ") + masked(0x89, b"ping") + masked(0x00, b"two ") + masked(0x80, b"three")

    assert list(MessageReader().receive_data(data)) == [
        Message(Opcode.PING, b"ping"),
        Message(Opcode.BINARY, b"one two three"),
    ]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\x05hello", 1002),  # no mask
        (masked(0xC2, b"x"), 1002),  # a reserved bit
        (masked(0x83, b"x"), 1002),  # no such opcode
        (masked(0x80, b"x"), 1002),  # the end of nothing
        (masked(0x02, b"x") + masked(0x82, b"x"), 1002),  # a message within a message
        (masked(0x09, b"x"), 1002),  # a ping in pieces
        (b"\x89\xfe\x00\x80" + MASK + bytes(128), 1002),  # a ping of 128 bytes
        (b"\x82\xff" + (1 << 40).to_bytes(8, "big"), 1009),
    ],
)
def test_what_breaks_the_protocol_says_what_to_close_with(data: bytes, code: int) -> None:
    with pytest.raises(WebSocketProtocolError) as error:
        list(MessageReader().receive_data(data))

    assert error.value.code == code


def test_fragments_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_frames, "MAX_MESSAGE", 100)
    with pytest.raises(WebSocketProtocolError) as error:
        list(MessageReader().receive_data(masked(0x02, bytes(60)) + masked(0x00, bytes(60))))

    assert error.value.code == 1009


@given(st.binary())
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with suppress(WebSocketProtocolError):
        list(MessageReader().receive_data(data))


def test_the_example_of_the_rfc_is_answered_as_there() -> None:
    """RFC 6455, section 1.3."""
    headers = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version": "13"}

    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in render_upgrade(headers)


@pytest.mark.parametrize("headers", [{}, {"sec-websocket-key": "x"}, {"sec-websocket-version": "13"}])
def test_other_requests_are_none(headers: dict[str, str]) -> None:
    with pytest.raises(WebSocketProtocolError):
        render_upgrade(headers)

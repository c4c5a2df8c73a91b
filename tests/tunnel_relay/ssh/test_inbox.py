from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.ssh.inbox import Inbox


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=100), max_size=20),
    limits=st.lists(st.integers(1, 300), min_size=1, max_size=20),
    lent=st.booleans(),
)
def test_bytes_come_out_in_order_whatever_is_asked_for(
    pieces: list[bytes], limits: list[int], lent: bool
) -> None:
    inbox = Inbox()
    for piece in pieces:
        (inbox.lend if lent else inbox.put)(memoryview(piece))
    if lent:
        inbox.keep()
    out = b""
    for limit in limits:
        if inbox.size:
            taken = inbox.take(limit)
            assert 0 < len(taken) <= limit
            out += taken
    expected = b"".join(pieces)
    assert expected.startswith(out)
    assert inbox.size == len(expected) - len(out)


def test_a_window_full_of_single_bytes_costs_little() -> None:
    inbox = Inbox()
    for _ in range(100_000):
        inbox.put(memoryview(b"x"))
    assert inbox.pieces < 10


def test_what_was_kept_does_not_change_with_its_buffer() -> None:
    inbox = Inbox()
    buffer = bytearray(b"one")
    inbox.lend(memoryview(buffer))
    inbox.keep()
    buffer[:] = b"two"
    assert inbox.take(10) == b"one"


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        yield near, far


def test_a_socket_takes_what_it_can(sockets: tuple[socket.socket, socket.socket]) -> None:
    near, far = sockets
    inbox = Inbox()
    data = bytes(range(256)) * 8000
    for start in range(0, len(data), 10_000):
        inbox.lend(memoryview(data)[start : start + 10_000])
    out = b""
    while inbox.size:
        written = inbox.write_to(near)
        out += far.recv(written, socket.MSG_WAITALL)
    assert out == data
    assert inbox.write_to(near) == 0


def test_a_broken_socket_says_so(sockets: tuple[socket.socket, socket.socket]) -> None:
    near, far = sockets
    far.close()
    inbox = Inbox()
    inbox.put(memoryview(b"x"))
    with pytest.raises(BrokenPipeError):
        inbox.write_to(near)

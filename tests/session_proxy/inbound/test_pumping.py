from __future__ import annotations

import select
import socket
from collections.abc import Generator
from contextlib import contextmanager

import attrs
import pytest

from session_proxy.inbound.pipes import PipePool, can_splice
from session_proxy.inbound.pumping import SMALLEST_READ, SPLICE_AFTER, STEP, Pump, Waiting, Workshop
from tests.support.sockets import tcp_pair

needs_splice = pytest.mark.skipif(not can_splice(), reason="this system has no splice(2)")

PATTERN = bytes(range(256)) * 4096


@attrs.define(eq=False)
class Bench:
    """A pump between two connections; the test holds the outer ends."""

    client: socket.socket
    server: socket.socket
    pump: Pump
    workshop: Workshop

    def feed(self, data: bytes) -> int:
        """Send as much of *data* as the connection takes."""
        sent = 0
        try:
            while sent < len(data):
                sent += self.client.send(data[sent:])
        except BlockingIOError:
            pass
        assert select.select([self.pump.source], [], [], 5)[0]
        return sent

    def taken(self) -> bytes:
        """Receive what has arrived behind the pump."""
        data = bytearray()
        while select.select([self.server], [], [], 0.02)[0] and (piece := self.server.recv(1 << 20)):
            data += piece
        return bytes(data)


@contextmanager
def bench(*, splice: bool = False, thorough: bool = True) -> Generator[Bench]:
    client, source = tcp_pair()
    sink, server = tcp_pair()
    workshop = Workshop(PipePool() if splice else None)
    with client, source, sink, server:
        pump = Pump(source, sink, workshop, thorough=thorough)
        yield Bench(client, server, pump, workshop)
        pump.abandon()
    workshop.close()


def test_it_moves_what_is_there_and_waits_for_more() -> None:
    with bench() as it:
        assert it.pump.step() is Waiting.SOURCE
        it.feed(b"hello")
        assert it.pump.step() is Waiting.SOURCE
        assert it.pump.moved == 5
        assert it.taken() == b"hello"


def test_the_end_of_the_source_is_the_end() -> None:
    with bench() as it:
        it.feed(b"last words")
        it.client.shutdown(socket.SHUT_WR)
        assert it.pump.step() is Waiting.NOTHING
        assert it.taken() == b"last words"


def test_a_short_read_is_the_last_for_who_is_told_of_every_arrival() -> None:
    with bench(thorough=False) as it:
        it.feed(b"hello")
        it.client.shutdown(socket.SHUT_WR)
        assert it.pump.step() is Waiting.SOURCE
        assert it.pump.step() is Waiting.NOTHING


@pytest.mark.parametrize("splice", [False, pytest.param(True, marks=needs_splice)])
def test_a_slow_sink_gets_every_byte_in_order(splice: bool) -> None:
    with bench(splice=splice) as it:
        it.pump.sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 262144)
        total = 6 * len(PATTERN)
        data = PATTERN * 6
        fed = 0
        arrived = bytearray()
        seen: set[Waiting] = set()
        while len(arrived) < total:
            if fed < total and select.select([], [it.client], [], 0)[1]:
                fed += it.feed(data[fed : fed + 3_000_000])
            for _ in range(8):
                seen.add(it.pump.step())
            arrived += it.taken()
        assert arrived == data
        assert it.pump.moved == total
        assert Waiting.SINK in seen


def test_what_is_moved_in_one_step_is_bounded() -> None:
    with bench() as it:
        it.pump.source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        moved: list[int] = []
        for _ in range(50):
            it.feed(PATTERN)
            before = it.pump.moved
            it.pump.step()
            moved.append(it.pump.moved - before)
            it.taken()
        assert STEP / 2 < max(moved) < 2 * STEP


@needs_splice
def test_pipes_are_used_when_much_has_moved_and_only_while_they_hold_bytes() -> None:
    with bench(splice=True) as it:
        assert it.workshop.pipes is not None
        while it.pump.moved < SPLICE_AFTER:
            it.feed(PATTERN[:SMALLEST_READ])
            it.pump.step()
            it.taken()
            assert it.workshop.pipes.idle == 0 or it.pump.moved >= SPLICE_AFTER
        it.feed(b"through a pipe")
        assert it.pump.step() is Waiting.SOURCE
        assert it.taken() == b"through a pipe"
        assert it.workshop.pipes.idle == 1
        it.client.shutdown(socket.SHUT_WR)
        assert select.select([it.pump.source], [], [], 5)[0]
        assert it.pump.step() is Waiting.NOTHING


@needs_splice
def test_without_a_pipe_to_be_had_the_buffer_serves() -> None:
    with bench(splice=True) as it:
        assert it.workshop.pipes is not None
        it.workshop.pipes.most = 0
        it.pump.moved = SPLICE_AFTER
        it.feed(b"through the buffer")
        assert it.pump.step() is Waiting.SOURCE
        assert it.taken() == b"through the buffer"


@needs_splice
def test_a_pipe_with_bytes_is_not_lent_again_when_its_pump_is_abandoned() -> None:
    with bench(splice=True) as it:
        assert it.workshop.pipes is not None
        it.pump.moved = SPLICE_AFTER
        it.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while it.pump.step() is not Waiting.SINK:
            it.feed(PATTERN)
        assert it.workshop.pipes.idle == 0
        it.pump.abandon()
        assert it.pump.waiting is Waiting.NOTHING
        assert it.workshop.pipes.idle == 0


def test_a_broken_connection_is_the_drivers_business() -> None:
    with bench() as it:
        it.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
        it.server.close()
        it.feed(b"x")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            it.pump.step()

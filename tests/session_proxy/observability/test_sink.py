"""Log lines leave without anybody waiting for them, whatever is at the other end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.observability.sink import MAX_BACKLOG, LineSink


@attrs.frozen
class Pipe:
    """The descriptors of a pipe."""

    reader: int
    writer: int


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    yield Pipe(reader, writer)
    for descriptor in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def fill(sink: LineSink) -> int:
    """Write lines of 100 bytes until the pipe takes no more; return how many fit."""
    count = 0
    while not sink.backlog:
        sink.write(f"{count:099}")
        count += 1
    return count


def test_a_line_is_written_at_once(pipe: Pipe) -> None:
    LineSink(pipe.writer).write("hällo \udc80")

    assert os.read(pipe.reader, 100) == "hällo \\udc80\n".encode()


async def test_what_a_stalled_reader_left_is_written_when_it_reads_again(pipe: Pipe) -> None:
    sink = LineSink(pipe.writer)
    count = fill(sink)
    assert sink.backlog

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        received = b""
        while received.count(b"\n") < count:
            await trio.lowlevel.wait_readable(pipe.reader)
            received += os.read(pipe.reader, 65536)
        nursery.cancel_scope.cancel()

    assert [int(line) for line in received.split()] == list(range(count))
    assert (sink.backlog, sink.dropped) == (0, 0)


def test_what_nobody_reads_is_dropped_at_a_bound_and_counted(pipe: Pipe) -> None:
    sink = LineSink(pipe.writer)
    for _ in range(30):
        sink.write("x" * 65535)

    assert sink.backlog <= MAX_BACKLOG
    assert sink.dropped > 10


def test_a_long_line_goes_in_pieces_and_whole(pipe: Pipe) -> None:
    line = "x" * 20000

    LineSink(pipe.writer).write(line)

    assert os.read(pipe.reader, 65536) == line.encode() + b"\n"


def test_a_reader_that_is_gone_costs_lines_only(pipe: Pipe) -> None:
    sink = LineSink(pipe.writer)
    os.close(pipe.reader)

    for _ in range(3):
        sink.write("nobody reads this")

    assert (sink.dropped, sink.backlog) == (3, 0)


def test_a_full_disk_costs_lines_only() -> None:
    with Path("/dev/full").open("wb") as full:
        sink = LineSink(full.fileno())
        sink.write("no space left")
        sink.write("no space left")

    assert sink.dropped == 2


async def test_a_descriptor_that_was_closed_costs_lines_only(pipe: Pipe) -> None:
    sink = LineSink(pipe.writer)
    fill(sink)
    os.close(pipe.writer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run)
        while sink.backlog:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    sink.write("lost")

    assert sink.dropped >= 2


def test_the_last_lines_are_waited_for_but_not_for_ever(pipe: Pipe) -> None:
    sink = LineSink(pipe.writer)
    fill(sink)
    sink.finish(0.01)
    assert sink.backlog, "nobody read: the program ends without the rest"

    os.read(pipe.reader, 65536)
    sink.finish(0.01)
    assert not sink.backlog

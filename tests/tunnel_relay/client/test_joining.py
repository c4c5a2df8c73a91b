"""A stream joined to pipes, sockets and files."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

from tunnel_relay.client.joining import join, open_end

LONG = os.urandom(500_000)


class Near:
    """The other ends of what is joined."""

    def __init__(self, kind: str, folder: Path, typed: bytes) -> None:
        self.file = folder / "out"
        if kind == "pipes":
            source, self.write_end = os.pipe()
            self.read_end, sink = os.pipe()
        elif kind == "socket":
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            source = theirs.detach()
            sink = os.dup(source)
            # Neither of the two may make the other's socket a blocking one when it is done.
            self.write_end = ours.detach()
            self.read_end = os.dup(self.write_end)
        else:
            (folder / "in").write_bytes(typed)
            source = os.open(folder / "in", os.O_RDONLY)
            sink = os.open(self.file, os.O_WRONLY | os.O_CREAT)
            self.write_end = self.read_end = -1
        self.source, self.sink = open_end(source), open_end(sink)


async def type_all(descriptor: int, data: bytes) -> None:
    stream = trio.lowlevel.FdStream(descriptor)
    await stream.send_all(data)
    is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    if is_socket:
        with socket.socket(fileno=os.dup(descriptor)) as ours:
            ours.shutdown(socket.SHUT_WR)
    else:
        await stream.aclose()


async def read_all(descriptor: int) -> bytes:
    async with trio.lowlevel.FdStream(descriptor) as stream:
        return b"".join([bytes(chunk) async for chunk in stream])


@pytest.mark.parametrize("kind", ["pipes", "socket", "files"])
async def test_both_directions_are_carried_to_their_ends(tmp_path: Path, kind: str) -> None:
    near = Near(kind, tmp_path, LONG)
    stream, far = memory_stream_pair()
    heard = b""

    async def answer() -> None:
        async for chunk in far:
            nonlocal heard
            heard += chunk
        # Only when it has heard the end does it say its own.
        await far.send_all(b"bye" * 100_000)
        await far.send_eof()

    said = b""

    async def read() -> None:
        nonlocal said
        said = await read_all(near.read_end)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            if kind != "files":
                nursery.start_soon(type_all, near.write_end, LONG)
                nursery.start_soon(read)
            await join(stream, near.source, near.sink)
    assert heard == LONG
    assert (near.file.read_bytes() if kind == "files" else said) == b"bye" * 100_000


@pytest.mark.parametrize("kind", ["pipes", "files"])
async def test_it_is_over_when_nobody_reads_any_more(tmp_path: Path, kind: str) -> None:
    stream, far = memory_stream_pair()
    if kind == "pipes":
        source, _ = os.pipe()
        reader, sink = os.pipe()
        os.close(reader)
    else:
        source = os.open("/dev/null", os.O_RDONLY)
        sink = os.open("/dev/full", os.O_WRONLY)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.send_all, b"anybody there?")
            await join(stream, open_end(source), open_end(sink))


async def test_a_broken_stream_is_told() -> None:
    stream, far = memory_stream_pair()
    source, typist = os.pipe()
    _, sink = os.pipe()
    os.write(typist, b"hello")
    await far.aclose()
    with trio.fail_after(20), pytest.raises(trio.BrokenResourceError):
        await join(stream, open_end(source), open_end(sink))

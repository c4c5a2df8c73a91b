from __future__ import annotations

import errno
import os
import select
import socket

import pytest

from session_proxy.inbound import pipes
from session_proxy.inbound.pipes import Pipe, PipePool, can_splice
from tests.support.sockets import tcp_pair

pytestmark = pytest.mark.skipif(not can_splice(), reason="this system has no splice(2)")


def wait_readable(sock: socket.socket) -> None:
    assert select.select([sock], [], [], 5)[0]


def test_bytes_go_through_a_pipe_from_socket_to_socket() -> None:
    pool = PipePool()
    pipe = pool.take()
    assert pipe is not None
    client, source = tcp_pair()
    sink, server = tcp_pair()
    with client, source, sink, server:
        with pytest.raises(BlockingIOError):
            pipe.fill(source.fileno())
        client.send(b"hello")
        wait_readable(source)
        assert pipe.fill(source.fileno()) == pipe.held == 5
        assert pipe.drain(sink.fileno()) == 5
        assert pipe.held == 0
        wait_readable(server)
        assert server.recv(10) == b"hello"
        client.shutdown(socket.SHUT_WR)
        wait_readable(source)
        assert pipe.fill(source.fileno()) == 0
    pool.give_back(pipe)
    pool.close()


def test_the_pipe_given_back_last_is_lent_first() -> None:
    pool = PipePool(most=2)
    first, second = pool.take(), pool.take()
    assert first is not None
    assert second is not None
    assert pool.take() is None
    pool.give_back(first)
    pool.give_back(second)
    assert pool.take() is second
    pool.give_back(second)
    pool.close()


def test_a_pipe_that_still_holds_bytes_is_thrown_away() -> None:
    pool = PipePool(most=1)
    pipe = pool.take()
    assert pipe is not None
    pipe.held = os.write(pipe.input, b"left over")
    pool.give_back(pipe)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe.input)
    other = pool.take()
    assert other is not None
    assert other is not pipe
    pool.give_back(other)
    pool.close()


def test_without_descriptors_there_is_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "too many files")

    monkeypatch.setattr(pipes.os, "pipe", refuse)
    assert PipePool().take() is None


def test_a_pipe_that_may_not_grow_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unprivileged user's pipes have 64 MiB in all; a small one is worse than the shared buffer."""
    made: list[tuple[int, int]] = []

    def refuse(*_arguments: int) -> int:
        raise OSError(errno.EPERM, "no more")

    make = os.pipe

    def remember() -> tuple[int, int]:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(pipes.fcntl, "fcntl", refuse)
    monkeypatch.setattr(pipes.os, "pipe", remember)
    assert PipePool().take() is None
    for descriptor in made[0]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_pipe_is_closed_at_both_ends() -> None:
    pipe = Pipe(*os.pipe())
    pipe.close()
    for descriptor in (pipe.input, pipe.output):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)

"""The load generator against its own target: what is measured is right before it is fast."""

from __future__ import annotations

import os
import socket

import pytest

from benchmarks.arena import Arena, Contestant, FailedError
from benchmarks.contestants import NO_PROXY
from benchmarks.payload import PATTERN, PERIOD, CorruptedError, Counter, read_buffer
from benchmarks.processes import Usage, free_port

MIB = 1 << 20


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("streams", [1, 8])
async def test_bytes_arrive_both_ways(arena: Arena, streams: int, checked: bool) -> None:
    assert await arena.download(NO_PROXY, 8 * MIB, streams, checked=checked) > 0
    assert await arena.upload(NO_PROXY, 8 * MIB, streams, checked=checked) > 0


async def test_round_trips_rates_and_idle_connections(arena: Arena) -> None:
    percentiles = await arena.ping(NO_PROXY, 50)
    assert 0 < percentiles["p50"] <= percentiles["p99"]
    assert await arena.connect_rate(NO_PROXY, 32) > 10
    async with arena.held(NO_PROXY, 5):
        pass


async def test_a_proxy_that_is_not_there_is_a_failure(arena: Arena) -> None:
    nobody = Contestant("nobody", ("127.0.0.1", free_port()))

    with pytest.raises(FailedError, match="nobody, download"):
        await arena.download(nobody, MIB)


@pytest.mark.parametrize("checked", [True, False])
def test_a_byte_that_is_repeated_is_noticed(checked: bool) -> None:
    """One period later the stream has slipped by one byte, and every comparison shows it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        counter = Counter(checked, read_buffer())
        theirs.sendall(PATTERN[:1000])
        counter.receive(ours, 1000)
        counter.position = 16 * MIB  # as after many more: the next read is compared in any case
        start = counter.position % PERIOD
        theirs.sendall(PATTERN[start - 1 : start + 999])
        with pytest.raises(CorruptedError):
            counter.receive(ours, 1000)


def test_usage_is_that_of_a_whole_family() -> None:
    usage = Usage.of([os.getpid()])
    assert usage.cpu > 0
    assert usage.memory > MIB

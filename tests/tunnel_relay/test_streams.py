from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, check_two_way_stream, memory_stream_pair

from tunnel_relay.streams import GatheringStream, OneAtATime, ReplayedStream


async def test_a_second_task_is_refused_and_a_later_one_is_not() -> None:
    one = OneAtATime("knitting on")
    with one:
        with pytest.raises(trio.BusyResourceError, match="knitting on this stream"), one:
            pass
        assert one.busy
    with one:
        pass


async def test_what_was_read_comes_again_first() -> None:
    near, far = memory_stream_pair()
    stream = ReplayedStream(near, b"abc")
    await far.send_all(b"def")
    assert await stream.receive_some(2) == b"ab"
    assert await stream.receive_some() == b"c"
    assert await stream.receive_some() == b"def"


async def test_both_are_streams(autojump_clock: MockClock) -> None:
    async def make() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        near, far = memory_stream_pair()
        return ReplayedStream(near, b""), GatheringStream(far)

    await check_two_way_stream(make, None)


@pytest.mark.parametrize("pause", [0.0, 0.5])
async def test_reads_wait_as_long_as_they_are_told(autojump_clock: MockClock, pause: float) -> None:
    near, far = memory_stream_pair()
    stream = GatheringStream(near)
    stream.pause = pause
    await far.send_all(b"x")
    assert await stream.receive_some() == b"x"
    assert trio.current_time() == pytest.approx(pause)

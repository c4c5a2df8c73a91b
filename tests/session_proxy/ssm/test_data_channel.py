"""What the driver's tests (test_carrying.py) do not reach: the channel by itself."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from session_proxy.protocol.ssm_frames import PayloadType
from session_proxy.ssm.data_channel import ACKNOWLEDGEMENT_LIMIT, SEND_LIMIT, DataChannel
from session_proxy.ssm.errors import DataChannelError
from tests.support.ssm import agent_frame, handshake, make_channel


def make(said: list[str] | None = None, *, frames_per_second: int = 1_000_000) -> DataChannel:
    channel = DataChannel(
        make_channel(frames_per_second=frames_per_second), (said if said is not None else []).append
    )
    for message in handshake():
        channel.channel.receive_message(message, 0.0)
    channel.take_events()
    return channel


def feed(channel: DataChannel, number: int, payload: bytes, kind: int = PayloadType.OUTPUT) -> None:
    channel.channel.receive_message(agent_frame(number, payload, kind), 0.0)
    channel.take_events()


async def test_reads_take_as_much_as_they_ask_for() -> None:
    channel = make()
    feed(channel, 2, b"abcdef")
    assert await channel.receive_some(2) == b"ab"
    assert await channel.receive_some(100) == b"cdef"


async def test_the_first_failure_is_the_one_that_counts() -> None:
    channel = make()
    channel.fail(DataChannelError("first"))
    channel.fail(DataChannelError("second"))
    with pytest.raises(DataChannelError, match="first"):
        await channel.receive_some()


async def test_closing_wakes_who_waits(autojump_clock: MockClock) -> None:
    channel = make()
    channel.channel.send_data(bytes(SEND_LIMIT))

    async def refused(work: object) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await work  # type: ignore[misc]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, channel.receive_some())
        nursery.start_soon(refused, channel.send_all(b"x"))
        await wait_all_tasks_blocked()
        channel.close()
    feed(channel, 2, b"nobody reads this")
    with pytest.raises(trio.ClosedResourceError):
        await channel.receive_some()


def test_acknowledgements_that_wait_for_the_pace_hold_the_reader_up() -> None:
    channel = make(frames_per_second=10)
    for number in range(2, ACKNOWLEDGEMENT_LIMIT + 3):
        feed(channel, number, b"x")
    assert not channel.has_room


def test_flags_are_kept_apart() -> None:
    channel = make()
    feed(channel, 2, b"\0\0\0\3", PayloadType.FLAG)
    assert list(channel.flags) == [3]
    assert not channel.heard_data.is_set()


async def test_nothing_is_queued_after_the_end() -> None:
    channel = make()
    channel.queue(b"bye")
    assert channel.channel.unsent == 3
    channel.end()
    channel.queue(b"too late")
    assert channel.channel.unsent == 3
    with pytest.raises(DataChannelError):
        await channel.wait_writable()

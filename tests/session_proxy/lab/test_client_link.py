from __future__ import annotations

import pytest
import trio
import trio.testing

from session_proxy.lab.client_link import FrailStream, RateMeter
from session_proxy.lab.faults import Faults


async def test_a_silenced_stream_stands_still_and_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    faults = Faults(silent=True)
    stream = FrailStream(near, faults)
    await far.send_all(b"held")
    with trio.move_on_after(1) as reading:
        await stream.receive_some()
    with trio.move_on_after(1) as writing:
        await stream.send_all(b"never")
    assert reading.cancelled_caught
    assert writing.cancelled_caught

    faults.silent = False
    await stream.wait_send_all_might_not_block()
    await stream.send_all(b"now")
    assert await far.receive_some() == b"now"
    await stream.aclose()
    assert await far.receive_some() == b""
    del autojump_clock


async def test_a_cut_stream_is_broken_even_while_silenced() -> None:
    near, far = trio.testing.memory_stream_pair()
    stream = FrailStream(near, Faults(silent=True))
    stream.cut = True
    await far.send_all(b"lost")
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"lost")


def test_a_meter_counts_within_a_second() -> None:
    meter = RateMeter()

    assert [meter.count(now) for now in (5.0, 5.5, 5.9, 6.0, 6.1, 9.0)] == [1, 2, 3, 1, 2, 1]

from __future__ import annotations

import pytest
import trio
import trio.testing

from session_proxy.lab.pace import CATCH_UP, FRAME_TIME, Pace


async def test_frames_come_at_a_steady_rate(autojump_clock: trio.testing.MockClock) -> None:
    pace = Pace()
    began = trio.current_time()

    for _ in range(100):
        await pace.wait()

    assert trio.current_time() - began == pytest.approx(100 * FRAME_TIME)


async def test_who_is_woken_late_makes_up_for_it(autojump_clock: trio.testing.MockClock) -> None:
    pace = Pace()
    began = trio.current_time()

    await pace.wait()
    autojump_clock.jump(CATCH_UP / 2)
    for _ in range(99):
        await pace.wait()

    assert trio.current_time() - began == pytest.approx(100 * FRAME_TIME)


async def test_silence_earns_nothing(autojump_clock: trio.testing.MockClock) -> None:
    pace = Pace()
    await pace.wait()
    await trio.sleep(1)
    began = trio.current_time()

    for _ in range(10):
        await pace.wait()

    assert trio.current_time() - began == pytest.approx(10 * FRAME_TIME)

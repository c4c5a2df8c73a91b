from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

from awg_obfs.background import open_background
from awg_obfs.idleness import LONGEST_PAUSE, SWEEPS, IdleWatch


@attrs.define(eq=False)
class Mover:
    """Moves when told to."""

    moved: int = 0
    ended_at: float | None = None

    def progress(self) -> int:
        return self.moved

    def expire(self) -> None:
        self.ended_at = self.ended_at or trio.current_time()


@pytest.mark.parametrize("limit", [1.0, 300.0])
async def test_what_is_quiet_for_too_long_is_ended(limit: float, autojump_clock: MockClock) -> None:
    watch, quiet, busy = IdleWatch(limit), Mover(), Mover()
    watch.add(quiet)
    watch.add(busy)
    async with open_background() as nursery:
        nursery.start_soon(watch.run)
        for _ in range(20):
            busy.moved += 1
            await trio.sleep(limit / 10)
        assert quiet.ended_at is not None
        assert limit <= quiet.ended_at <= limit + min(limit / SWEEPS, LONGEST_PAUSE) + 0.01
        assert busy.ended_at is None


async def test_what_is_discarded_is_left_alone(autojump_clock: MockClock) -> None:
    watch, mover = IdleWatch(1.0), Mover()
    watch.add(mover)
    watch.discard(mover)
    watch.discard(mover)
    async with open_background() as nursery:
        nursery.start_soon(watch.run)
        await trio.sleep(10)
    assert mover.ended_at is None

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from session_proxy.inbound.idleness import LONGEST_PAUSE, SWEEPS, Idleness, Watched


@attrs.define(eq=False)
class Thing(Watched):
    """Counts what the test says, and notes when it was ended."""

    moved: int = 0
    expired: list[float] = attrs.field(factory=list[float])

    def progress(self) -> int:
        return self.moved

    def expire(self) -> None:
        self.expired.append(trio.current_time())


@pytest.mark.parametrize("limit", [1.0, 60.0, 3600.0])
async def test_what_is_quiet_is_ended_a_little_late(
    limit: float, autojump_clock: trio.testing.MockClock
) -> None:
    idleness = Idleness(limit)
    quiet, busy = Thing(), Thing()
    idleness.add(quiet)
    idleness.add(busy)
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(idleness.run)
        while not quiet.expired:
            await trio.sleep(limit / 10)
            busy.moved += 1
        nursery.cancel_scope.cancel()

    assert limit <= quiet.expired[0] - begin <= limit * (1 + 2 / SWEEPS)
    assert not busy.expired


async def test_something_can_have_a_limit_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    idleness = Idleness(3600)
    thing = Thing(quiet_limit=60)
    idleness.add(thing)
    begin = trio.current_time()
    with trio.move_on_after(120):
        await idleness.run()
    assert 60 <= thing.expired[0] - begin <= 60 + 2 * LONGEST_PAUSE


async def test_what_is_not_watched_any_more_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    idleness = Idleness(1)
    thing = Thing()
    idleness.add(thing)
    idleness.discard(thing)
    with trio.move_on_after(10):
        await idleness.run()
    assert not thing.expired

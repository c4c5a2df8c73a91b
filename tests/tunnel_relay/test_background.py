from __future__ import annotations

import pytest
import trio
import trio.testing

from tunnel_relay.background import open_background, wait_first


async def test_its_tasks_end_with_the_block(autojump_clock: trio.testing.MockClock) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("work")

    async with open_background() as nursery:
        nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
    assert ended == ["work"]


async def test_what_the_block_raises_is_not_wrapped() -> None:
    with pytest.raises(KeyError):  # noqa: PT012
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyError("x")


async def test_what_the_block_raises_survives_a_cancellation_from_outside() -> None:
    with pytest.raises(KeyError), trio.CancelScope() as scope:  # noqa: PT012
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            raise KeyError("x")


async def test_a_cancelled_block_ends_quietly() -> None:
    with trio.move_on_after(0) as scope:
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_bug_in_a_task_comes_out_as_a_group() -> None:
    async def fail() -> None:
        raise LookupError("bug")

    with pytest.RaisesGroup(LookupError):
        async with open_background() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()


async def test_the_first_of_several_events_ends_the_wait() -> None:
    first, second = trio.Event(), trio.Event()
    second.set()
    await wait_first(first, second)
    with trio.move_on_after(0) as waiting:
        await wait_first(first)
    assert waiting.cancelled_caught

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from awg_obfs.background import open_background
from awg_obfs.condition import CLUE_LASTS, Condition, TunnelState
from awg_obfs.errors import DialFault, TunnelDialError


async def test_who_waits_goes_on_when_it_works() -> None:
    condition = Condition(patience=10.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(condition.wait_ready)
        nursery.start_soon(condition.wait_working)
        await condition.wait_usable()
        await wait_all_tasks_blocked()
        condition.ready()

    assert condition.state is TunnelState.READY
    assert condition.reason == ""


async def test_what_does_not_come_up_in_time_is_down_and_fails_at_once(autojump_clock: MockClock) -> None:
    condition = Condition(patience=10.0)
    async with open_background() as nursery:
        nursery.start_soon(condition.watch_patience)
        condition.troubled("no answer")
        with pytest.raises(TunnelDialError, match="no answer") as caught:
            await condition.wait_ready()
        assert trio.current_time() == pytest.approx(10.0)
        assert caught.value.fault is DialFault.DOWN
        with pytest.raises(TunnelDialError):
            await condition.wait_ready()
        assert (condition.state, condition.since) == (TunnelState.DOWN, pytest.approx(10.0))


async def test_what_is_down_stays_so_until_it_works(autojump_clock: MockClock) -> None:
    condition = Condition(patience=1.0)
    async with open_background() as nursery:
        nursery.start_soon(condition.watch_patience)
        await trio.sleep(2)
        condition.troubled("another reason")
        assert (condition.state, condition.reason) == (TunnelState.DOWN, "another reason")
        async with trio.open_nursery() as waiting:
            waiting.start_soon(condition.wait_usable)
            waiting.start_soon(condition.wait_change)
            await trio.sleep(5)
            condition.ready()


async def test_patience_begins_anew_with_every_trouble(autojump_clock: MockClock) -> None:
    condition = Condition(patience=3.0)
    async with open_background() as nursery:
        nursery.start_soon(condition.watch_patience)
        for _ in range(3):
            condition.ready()
            condition.troubled("silence")
            await trio.sleep(2)
            assert condition.state is TunnelState.STARTING
        await trio.sleep(2)
        assert condition.state is TunnelState.DOWN


async def test_what_needs_it_is_given_up_when_it_goes_down(autojump_clock: MockClock) -> None:
    condition = Condition(patience=3.0)
    async with open_background() as nursery:
        nursery.start_soon(condition.watch_patience)
        condition.troubled("silence")
        with pytest.raises(TunnelDialError, match="silence") as caught, condition.needed():
            await trio.sleep_forever()
        # What the block had asked for may have been done.
        assert caught.value.uncertain
        condition.ready()
        with condition.needed():
            await trio.sleep(10)


async def test_what_comes_back_as_it_is_given_up_is_given_up_all_the_same(autojump_clock: MockClock) -> None:
    condition = Condition(patience=3.0)
    condition.troubled("silence")

    async def come_back() -> None:
        while condition.state is not TunnelState.DOWN:
            await condition.wait_change()
        condition.ready()

    async def linger() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        await trio.lowlevel.checkpoint()

    async with open_background() as nursery:
        nursery.start_soon(condition.watch_patience)
        nursery.start_soon(come_back)
        with pytest.raises(TunnelDialError, match="silence"), condition.needed():
            await linger()
        assert condition.state is TunnelState.READY


async def test_what_was_learnt_is_said_instead_of_silence_for_a_while(autojump_clock: MockClock) -> None:
    condition = Condition(patience=60.0)
    condition.unanswered("no answer")
    assert condition.reason == "no answer"
    condition.learnt("the keys differ")
    assert (condition.state, condition.reason) == (TunnelState.STARTING, "the keys differ")
    await trio.sleep(CLUE_LASTS - 1)
    condition.unanswered("no answer")
    assert condition.reason == "the keys differ"
    condition.troubled("no such host")
    assert condition.reason == "no such host"
    await trio.sleep(2)
    condition.unanswered("no answer")
    assert condition.reason == "no answer"


async def test_what_is_learnt_does_not_outlast_success_nor_spoil_it() -> None:
    condition = Condition(patience=60.0)
    condition.learnt("the keys differ")
    condition.ready()
    condition.learnt("somebody sent nonsense")
    assert condition.reason == ""
    condition.unanswered("no answer")
    assert condition.reason == "no answer"

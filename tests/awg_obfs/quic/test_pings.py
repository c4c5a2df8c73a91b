"""Round trips that somebody waits for."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from awg_obfs.quic.pings import Pings


async def test_each_ping_measures_its_own_round_trip(autojump_clock: MockClock) -> None:
    pings = Pings()
    first = pings.begin()
    await trio.sleep(1)
    second = pings.begin()
    await trio.sleep(1)
    pings.answer(second)
    pings.answer(first)
    pings.answer(first)
    assert await pings.wait(first) == pytest.approx(2)
    assert await pings.wait(second) == pytest.approx(1)


async def test_nobody_waits_for_a_connection_that_has_ended() -> None:
    pings = Pings()
    uid = pings.begin()
    pings.give_up()
    assert await pings.wait(uid) is None


async def test_answers_that_nobody_waits_for_are_passed_over() -> None:
    pings = Pings()
    pings.answer(0)
    given_up = pings.begin()
    with trio.move_on_after(0) as patience:
        await pings.wait(given_up)
    assert patience.cancelled_caught
    pings.answer(given_up)
    # None of them is taken for the answer to another.
    waited_for = pings.begin()
    assert waited_for != given_up
    with trio.move_on_after(0) as patience:
        await pings.wait(waited_for)
    assert patience.cancelled_caught

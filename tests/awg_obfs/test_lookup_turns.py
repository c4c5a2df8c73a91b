from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from awg_obfs.lookup_turns import MOST_LOOKUPS, MOST_OF_CLIENT, LookupTurns

SECONDS = 10


@pytest.fixture
def answered() -> Iterator[threading.Event]:
    """Set it to have the look-ups of `look_up` end; they do in the end."""
    event = threading.Event()
    yield event
    event.set()


async def look_up(turns: trio.CapacityLimiter, answered: threading.Event) -> None:
    await trio.to_thread.run_sync(answered.wait, limiter=turns, abandon_on_cancel=True)


async def test_one_client_does_not_take_the_turns_of_others(answered: threading.Event) -> None:
    turns = LookupTurns()
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(MOST_LOOKUPS + 1):
                nursery.start_soon(look_up, turns.of_client("greedy"), answered)
            await wait_all_tasks_blocked()
            await trio.to_thread.run_sync(int, limiter=turns.of_client("modest"))
            answered.set()


async def test_all_clients_together_have_so_many_turns(answered: threading.Event) -> None:
    turns = LookupTurns()
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(MOST_LOOKUPS):
                nursery.start_soon(look_up, turns.of_client(number // MOST_OF_CLIENT), answered)
            await wait_all_tasks_blocked()
            late = trio.Event()

            async def look_up_late() -> None:
                await trio.to_thread.run_sync(int, limiter=turns.of_client("late"))
                late.set()

            nursery.start_soon(look_up_late)
            await wait_all_tasks_blocked()
            assert not late.is_set()
            answered.set()
        assert late.is_set()


async def test_who_gives_up_has_its_turn_back_when_the_thread_ends(answered: threading.Event) -> None:
    turns = LookupTurns()
    with trio.fail_after(SECONDS):
        # The second half gives up while it waits for a turn, and never had one.
        async with trio.open_nursery() as nursery:
            for _ in range(2 * MOST_OF_CLIENT):
                nursery.start_soon(look_up, turns.of_client("fickle"), answered)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            again = trio.Event()

            async def look_up_again() -> None:
                await trio.to_thread.run_sync(int, limiter=turns.of_client("fickle"))
                again.set()

            nursery.start_soon(look_up_again)
            await wait_all_tasks_blocked()
            assert not again.is_set()
            answered.set()
        for _ in range(2 * MOST_OF_CLIENT):
            await look_up(turns.of_client("fickle"), answered)


async def test_who_gives_up_waiting_for_all_has_taken_nothing(answered: threading.Event) -> None:
    turns = LookupTurns()
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(MOST_LOOKUPS):
                nursery.start_soon(look_up, turns.of_client(number // MOST_OF_CLIENT), answered)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as impatient:
                for _ in range(MOST_OF_CLIENT):
                    impatient.start_soon(look_up, turns.of_client("late"), answered)
                await wait_all_tasks_blocked()
                impatient.cancel_scope.cancel()
            answered.set()
        async with trio.open_nursery() as nursery:
            for _ in range(MOST_OF_CLIENT):
                nursery.start_soon(look_up, turns.of_client("late"), answered)

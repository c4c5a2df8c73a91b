from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
import trio.testing

from session_proxy.observability.task_tree import render_task_tree


async def wait_for_bread(oven: trio.Event) -> None:
    await oven.wait()


async def bake(oven: trio.Event) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_bread, oven, name="first loaf")
        nursery.start_soon(wait_for_bread, oven, name="second loaf")


@asynccontextmanager
async def open_bakery(oven: trio.Event) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bake, oven, name="bakery")
        yield


async def test_the_tree_shows_owners_and_where_they_wait() -> None:
    oven = trio.Event()
    async with open_bakery(oven):
        await trio.testing.wait_all_tasks_blocked()

        lines = render_task_tree(trio.lowlevel.current_task())

        oven.set()

    assert "(this dump)" in lines[0]
    bakery = next(index for index, line in enumerate(lines) if line.startswith("    bakery  "))
    assert lines[bakery - 1].endswith("(1 task)")
    assert lines[bakery].endswith(" bake")
    assert lines[bakery + 1] == "      nursery 0 (2 tasks)"
    where = f"{__name__}:{wait_for_bread.__code__.co_firstlineno + 1} wait_for_bread"
    assert lines[bakery + 2].startswith(f"        first loaf  {where} > trio._sync:")
    assert lines[bakery + 3].startswith(f"        second loaf  {where} > trio._sync:")
    assert lines[bakery + 3].endswith(" Event.wait")


async def test_a_task_that_has_not_run_yet_waits_at_its_first_line() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_bread, trio.Event(), name="fresh")
        [line] = [text for text in render_task_tree(trio.lowlevel.current_task()) if "fresh" in text]
        nursery.cancel_scope.cancel()

    assert line.endswith(f"{__name__}:{wait_for_bread.__code__.co_firstlineno} wait_for_bread")


async def sink(depth: int, oven: trio.Event) -> None:
    if depth:
        await sink(depth - 1, oven)
    else:
        await oven.wait()


async def test_a_deep_chain_shows_its_ends() -> None:
    oven = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink, 20, oven, name="deep")
        await trio.testing.wait_all_tasks_blocked()
        [line] = [
            text for text in render_task_tree(trio.lowlevel.current_task()) if text.strip().startswith("deep")
        ]
        oven.set()

    assert line.count(" sink") == 3
    assert line.endswith(" Event.wait")
    assert " > … > " in line

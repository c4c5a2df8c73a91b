"""A nursery that is an implementation detail: it lives as long as a block, and does not show."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_background() -> AsyncGenerator[trio.Nursery, None]:
    """Run tasks beside the block; they are cancelled when it ends.

    What the block raises comes out as it was raised, not wrapped into a group. The tasks must keep what goes
    wrong to themselves, or tell the block in another way; what they do raise is a bug, and comes out as a group.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:
                failure = exc
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The tasks may have been cancelled from outside at the same time: that is no news beside a failure.
        others = group.split(lambda exc: exc is failure)[1]
        bugs = others and others.split(trio.Cancelled)[1]
        if failure is None or bugs or isinstance(failure, trio.Cancelled):
            raise
        raise failure from failure.__cause__


async def wait_first(*events: trio.Event) -> None:
    """Return when one of them is set."""
    async with trio.open_nursery() as nursery:

        async def until(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(until, event)

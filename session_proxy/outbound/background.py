"""A nursery that lives as long as a block, and does not show (style: no group where one thing went wrong)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_background() -> AsyncGenerator[trio.Nursery, None]:
    """Run tasks beside the block; they are cancelled when it ends.

    What the block raises comes out as it was raised, not wrapped into a group: the nursery is nobody's
    business but ours. Several failures at once still come out as a group, for each of them is news.
    """
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from benchmarks.arena import Arena, open_arena


@pytest.fixture
async def arena() -> AsyncGenerator[Arena]:
    """A load generator and targets."""
    async with open_arena() as opened:
        yield opened

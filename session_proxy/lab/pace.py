"""The pace of AWS's agent, which sleeps a millisecond after every 1024 bytes that it sends."""

from __future__ import annotations

import math

import trio

# AWS's agent reads and sends so much at a time.
PACED_PAYLOAD = 1024
# With the read, the frame and what a sleep takes longer than asked for, that comes to 0.62 MB/s, as measured on it.
FRAME_TIME = PACED_PAYLOAD / 620_000
# Agents of the lab share one thread, and wake each other late. AWS's do not: so what is late by this much at most
# is made up for.
CATCH_UP = 0.02


class Pace:
    """Call `wait` after each frame."""

    def __init__(self) -> None:
        self._due = -math.inf

    async def wait(self) -> None:
        """Wait until the next frame may be sent."""
        now = trio.current_time()
        start = self._due if now - self._due < CATCH_UP else now
        self._due = start + FRAME_TIME
        await trio.sleep_until(self._due)

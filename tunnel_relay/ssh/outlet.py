"""Emptying a session's output: at once where the wire takes it, else by a task of its own."""

from __future__ import annotations

from collections.abc import Callable

import trio

from tunnel_relay.ssh.packets import PacketWriter
from tunnel_relay.ssh.wire import Wire

# A write of this size is worth a system call of its own. Of smaller ones the first in a pass of the scheduler
# goes at once, which saves it the wait for the task's turn; those that follow are collected.
LARGE = 16 * 1024


class Outlet:
    """Sends what is in *writer*. Call `push` after writing to it; `run` does what `push` must leave.

    *fill* lets channels that wait write more, and returns whether the writer holds anything then.
    """

    def __init__(self, writer: PacketWriter, wire: Wire, fill: Callable[[], bool]) -> None:
        self._writer = writer
        self._wire = wire
        self._fill = fill
        self._woken = trio.Event()
        self._drained = trio.lowlevel.ParkingLot()
        self._busy = False
        self._rest: tuple[memoryview, int] | None = None

    def push(self) -> None:
        """Send what has been written. Neither waits nor fails: `run` does that."""
        if self._busy or self._woken.is_set():
            return
        size = self._writer.used
        if size:
            taken = self._writer.take()
            sent = self._wire.write_now(taken)
            if sent == size:
                self._writer.give_back(taken)
                if size >= LARGE and not self._fill():
                    return
            else:
                self._busy = True
                self._rest = taken, sent
        self._woken.set()

    async def run(self) -> None:
        """Send whatever is to be sent, until cancelled; raises `SshDisconnectedError` where the wire breaks."""
        while True:
            await self._woken.wait()
            self._busy = True
            if self._rest is not None:
                taken, sent = self._rest
                self._rest = None
                await self._wire.write_all(taken[sent:])
                self._writer.give_back(taken)
            while self._fill():
                taken = self._writer.take()
                await self._wire.write_all(taken)
                self._writer.give_back(taken)
            # From here to the wait nobody else runs, so no push is lost.
            self._busy = False
            self._woken = trio.Event()
            self._drained.unpark_all()

    async def wait_drained(self) -> None:
        """Wait until everything that was written has been handed to the wire."""
        while self._busy or self._writer.used:
            await self._drained.park()

"""A relay between two sockets, and the loop that drives it on any system: a task for each direction.

`session_proxy.inbound.epoll_mover` has the faster twin of that loop.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from session_proxy.inbound.idleness import Watched
from session_proxy.inbound.pumping import Pump, Waiting, Workshop


class RelayEnd(enum.StrEnum):
    """How a relay ended; the value is the outcome that the access log shows."""

    FINISHED = "ok"
    RESET = "reset"
    IDLE = "idle-timeout"


@attrs.define(eq=False)
class SocketRelay(Watched):
    """A relay between two sockets: *upward* carries what the client sends, *downward* what it receives."""

    near: int
    far: int
    upward: Pump
    downward: Pump
    end: RelayEnd | None = None
    _waiter: trio.lowlevel.Task | None = None

    @classmethod
    def between(cls, near: socket.socket, far: socket.socket, workshop: Workshop) -> SocketRelay:
        """Return a relay between *near* and *far* that has not started yet."""
        return cls(near.fileno(), far.fileno(), Pump(near, far, workshop), Pump(far, near, workshop))

    def progress(self) -> int:
        """Return how many bytes have moved so far, both ways together."""
        return self.upward.moved + self.downward.moved

    def expire(self) -> None:
        """End: nothing has moved for too long."""
        self.finish(RelayEnd.IDLE)

    def finish(self, end: RelayEnd) -> None:
        """Be over, unless that is so already."""
        if self.end is None:
            self.end = end
            if self._waiter is not None:
                trio.lowlevel.reschedule(self._waiter)
                self._waiter = None

    async def wait_ended(self) -> None:
        """Wait until the relay is over; one task at a time.

        What a `trio.Event` would do for any number of tasks, at half the cost and a third of the memory.
        """
        if self.end is None:
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)

    def _stop_waiting(self, _raise_cancel: Callable[[], object]) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    def step(self, pump: Pump) -> Waiting:
        """Let *pump*, one of the two, move what it can; notice whether that is the end of the relay."""
        try:
            waiting = pump.step()
            if waiting is Waiting.NOTHING:
                other = self.downward if pump is self.upward else self.upward
                if other.waiting is Waiting.NOTHING:
                    # Both sockets are about to be closed, which says the same.
                    self.finish(RelayEnd.FINISHED)
                else:
                    pump.sink.shutdown(socket.SHUT_WR)
        except OSError:
            self.finish(RelayEnd.RESET)
            return Waiting.NOTHING
        return waiting


class Mover(Protocol):
    """A loop that drives relays."""

    async def run(self) -> None:
        """Move bytes until cancelled."""
        ...

    async def carry(self, relay: SocketRelay) -> None:
        """Drive *relay* until it has ended. Its sockets are the caller's again afterwards."""
        ...


@attrs.define(eq=False)
class TaskMover:
    """Drives each direction of each relay in a task of its own."""

    async def run(self) -> None:
        """Do nothing: the relays drive themselves."""
        await trio.sleep_forever()

    async def carry(self, relay: SocketRelay) -> None:
        """Drive *relay* until it has ended."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drive, relay, relay.upward)
                nursery.start_soon(self._drive, relay, relay.downward)
                await relay.wait_ended()
                nursery.cancel_scope.cancel()
        finally:
            relay.upward.abandon()
            relay.downward.abandon()

    async def _drive(self, relay: SocketRelay, pump: Pump) -> None:
        while (waiting := relay.step(pump)) is not Waiting.NOTHING:
            if waiting is Waiting.SOURCE:
                await trio.lowlevel.wait_readable(pump.source)
            elif waiting is Waiting.SINK:
                await trio.lowlevel.wait_writable(pump.sink)
            else:
                await trio.lowlevel.checkpoint()

"""One task that drives all relays between plain sockets, by an epoll instance of its own."""

from __future__ import annotations

import select
import sys
from collections import deque

import attrs
import trio

from session_proxy.inbound.movers import RelayEnd, SocketRelay
from session_proxy.inbound.pumping import Pump, Waiting

# Bytes moved before Trio's other tasks have their turn: about half a millisecond's worth.
ROUND = 2 * 1024 * 1024

# Events taken from epoll at once; more would only make the first of them wait.
EVENTS = 256

ARRIVALS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET


def has_epoll() -> bool:
    """Tell whether this system has epoll(7)."""
    return sys.platform == "linux"


@attrs.frozen(eq=False)
class End:
    """A socket of a relay: the pump that reads from it, and the one that writes to it."""

    relay: SocketRelay
    reading: Pump
    writing: Pump


@attrs.define(eq=False)
class EpollMover:
    """Drives relays by edges: a socket is asked for bytes until it has none, then epoll tells of new ones.

    Theory: a socket is registered once, for arrivals; a wait for room is added when it is first needed, and
    stays. An edge that comes while a pump is at work is kept by epoll, so none is lost. A pump that has moved
    its share goes to the end of the queue, and after `ROUND` bytes the Trio loop has its turn.
    """

    _epoll: select.epoll = attrs.field(factory=select.epoll, init=False)
    _ends: dict[int, End] = attrs.field(factory=dict[int, End], init=False)
    _queue: deque[tuple[SocketRelay, Pump]] = attrs.field(factory=deque[tuple[SocketRelay, Pump]], init=False)

    async def run(self) -> None:
        """Move bytes until cancelled."""
        descriptor = self._epoll.fileno()
        try:
            while True:
                if self._queue:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(descriptor)
                self._collect()
                self._work()
        finally:
            for end in list(self._ends.values()):
                end.relay.finish(RelayEnd.RESET)
            self._epoll.close()

    async def carry(self, relay: SocketRelay) -> None:
        """Drive *relay* until it has ended. Its sockets are the caller's again afterwards."""
        try:
            self._register(relay)
            await relay.wait_ended()
        finally:
            self._forget(relay)

    def _register(self, relay: SocketRelay) -> None:
        relay.upward.thorough = relay.downward.thorough = False
        self._ends[relay.near] = End(relay, relay.upward, relay.downward)
        self._ends[relay.far] = End(relay, relay.downward, relay.upward)
        try:
            for descriptor in (relay.near, relay.far):
                self._epoll.register(descriptor, ARRIVALS)
        except OSError:
            # This user has no more watches (/proc/sys/fs/epoll/max_user_watches): too many connections.
            relay.finish(RelayEnd.RESET)

    def _forget(self, relay: SocketRelay) -> None:
        for descriptor in (relay.near, relay.far):
            del self._ends[descriptor]
            try:
                self._epoll.unregister(descriptor)
            except (OSError, ValueError):
                # Registering it had failed, or the instance is closed already.
                continue
        relay.upward.abandon()
        relay.downward.abandon()

    def _collect(self) -> None:
        """Queue the pumps that have something to do."""
        for descriptor, mask in self._epoll.poll(0, EVENTS):
            end = self._ends[descriptor]
            reading, writing = end.reading, end.writing
            if mask & ~(select.EPOLLIN | select.EPOLLOUT):
                # The end, urgent data, or an error: the news does not come twice.
                reading.thorough = True
                if mask & select.EPOLLERR and reading.waiting is Waiting.NOTHING:
                    end.relay.finish(RelayEnd.RESET)
            if reading.waiting is Waiting.SOURCE and mask & ~select.EPOLLOUT:
                reading.waiting = Waiting.TURN
                self._queue.append((end.relay, reading))
            if writing.waiting is Waiting.SINK and mask & ~select.EPOLLIN:
                writing.waiting = Waiting.TURN
                self._queue.append((end.relay, writing))

    def _work(self) -> None:
        """Step through the queue until it is empty or a round's worth has moved."""
        moved = 0
        while self._queue and moved < ROUND:
            relay, pump = self._queue.popleft()
            if relay.end is not None:
                continue
            before = pump.moved
            waiting = relay.step(pump)
            moved += pump.moved - before
            if waiting is Waiting.TURN:
                self._queue.append((relay, pump))
            elif waiting is Waiting.SINK and not pump.sink_watched:
                pump.sink_watched = True
                # Changing the wait makes epoll look at the socket anew: room that is there already is told.
                self._epoll.modify(pump.sink.fileno(), ARRIVALS | select.EPOLLOUT)
